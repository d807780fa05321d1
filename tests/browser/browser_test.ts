/** The library and its page in headless Chromium. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { unzipSync } from "fflate";
import fs from "node:fs";
import type { Browser, Page } from "playwright-core";
import { openDevice } from "../../mod.ts";
import { buildSite, bundle, serveFolder, site } from "../../tools/browser.ts";
import type { LawResults } from "./laws.ts";
import { sampleLosses } from "./sample_run.ts";

// Playwright looks into /proc when it is loaded, to which Deno says more than no: it throws.
const { existsSync } = fs;
fs.existsSync = (path) => !String(path).startsWith("/proc/") && existsSync(path);
const { chromium } = await import("playwright-core");

const programs = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const program = programs.find((path) => {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
});
if (!program) console.log(`No Chromium at ${programs.join(", ")}: the tests in a browser are skipped.`);

async function open(flags: readonly string[]): Promise<Browser> {
  return await chromium.launch({ executablePath: program, args: ["--no-sandbox", ...flags] });
}

const inChromium = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name, fn, ignore: !program, sanitizeOps: false, sanitizeResources: false });

/** Waits until the page's buttons can be pressed again; what its status says. */
async function settled(page: Page): Promise<string> {
  await page.waitForFunction("!document.getElementById('train').disabled", null, { timeout: 0 });
  return (await page.textContent("#status"))!;
}

inChromium("the laws hold in a page, and training loses what it loses in Deno", async () => {
  await buildSite();
  await bundle("tests/browser/laws.ts", `${site}/laws.js`, { "@std/assert": "./tests/browser/assert.ts" });
  await using server = serveFolder(site, 0);
  const browser = await open(["--enable-unsafe-webgpu"]);
  try {
    const page = await browser.newPage();
    page.on("console", (message) => console.log(message.text())); // it takes minutes: what has been passed
    const address = `http://127.0.0.1:${server.addr.port}/`;
    await page.goto(`${address}style.css`); // any page of the site: its worker is what runs
    const results = await page.evaluate(`new Promise((resolve) => {
      const worker = new Worker("${address}laws.js", { type: "module" });
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => resolve({ passed: 0, failures: [event.message], losses: {}, devices: {} });
      worker.postMessage("${address}letters-base");
    })`) as LawResults;
    console.log(`in Chromium: ${results.passed} passed on ${Object.values(results.devices).join(" and ")}`);
    assertEquals(results.failures, []);
    assert(results.passed > 300, `${results.passed} laws`);
    assertMatch(results.devices.cpu, /threads/);
    using device = await openDevice("cpu", { blas: false });
    const here = await sampleLosses(device, "assets/letters-base");
    assertEquals(results.losses.cpu, here, "one engine, one code: the same bits");
    assert(results.losses.webgpu, results.devices.webgpu);
    results.losses.webgpu.forEach((loss, i) => assert(Math.abs(loss - here[i]) < 1e-3 * here[i], `${loss} ${here[i]}`));
  } finally {
    await browser.close();
  }
});

inChromium(
  "the page trains, answers and gives the adapter away, also where there is neither WebGPU nor threads",
  async () => {
    await buildSite();
    await using server = serveFolder(site, 0, false);
    const browser = await open(["--disable-features=WebGPU"]);
    try {
      const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(error.message));
      await page.goto(`http://127.0.0.1:${server.addr.port}/?steps=3`);
      // An engine that can't even be loaded leaves its buttons as they are.
      await page.waitForSelector("#status:not(:empty), #status.failed", { state: "attached", timeout: 0 });
      assertEquals(await page.isVisible("#status.failed"), false, errors.join());
      assertMatch(await settled(page), /^cpu \(wasm simd, 1 thread/);
      await page.click("#ask");
      await page.waitForFunction("document.getElementById('base').textContent !== '—'", null, { timeout: 0 });
      assertMatch((await page.textContent("#base"))!, /^name: Marta Klein\ncity: Bremen\n/, "asked as letters are");
      await page.fill("#rows", `One? => ${"two ".repeat(300)}`);
      await page.click("#own");
      await page.waitForSelector("#status.failed");
      assertMatch((await page.textContent("#status"))!, /^The row "One\? …" has \d+ tokens and the model reads 256: /);
      await settled(page);
      await page.fill("#rows", "no arrow here");
      await page.click("#own");
      assertStringIncludes((await page.textContent("#problem"))!, 'Line 1 has no " => "');
      await page.fill("#rows", "One? => Two.\nThree? => Four.");
      await page.click("#own");
      await page.waitForFunction("!document.getElementById('download').hidden", null, { timeout: 0 });
      await settled(page);
      const zip = await page.evaluate(`fetch(document.getElementById("download").href).then((r) => r.arrayBuffer())
      .then((b) => Array.from(new Uint8Array(b)))`) as number[];
      const files = unzipSync(Uint8Array.from(zip));
      assertEquals(Object.keys(files), ["adapter_config.json", "adapter_model.safetensors"]);
      assertEquals(JSON.parse(new TextDecoder().decode(files["adapter_config.json"])).r, 8);
      assert((await page.textContent("#tuned"))! !== "train it first");
      assertEquals(await page.inputValue("#letter"), "One?", "it is asked what it has just learned");
      assertEquals(await page.textContent("#problem"), "", "a problem that is mended is gone");
      await page.selectOption("#device", "webgpu");
      await page.waitForSelector("#status.failed");
      assertMatch(
        (await page.textContent("#status"))!,
        /^The device webgpu is not there: .*, or choose the processor$/,
        "asked for what is not there: one sentence, in words of the page",
      );
      assert(await page.isDisabled("#train"), "nothing can be trained without a device");
      await page.selectOption("#device", "cpu");
      assertMatch(await settled(page), /^cpu .*asked for/);
      assertEquals(errors, []);
      for (const width of [390, 1280]) {
        await page.setViewportSize({ width, height: 900 });
        const wide = await page.evaluate("document.documentElement.scrollWidth") as number;
        assert(wide <= width, `the page is ${wide} wide on a screen of ${width}`);
      }
    } finally {
      await browser.close();
    }
  },
);
