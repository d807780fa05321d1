/** The package as its users get it: published to a registry, imported from a folder that knows nothing of this one. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { type Registry, startRegistry } from "./registry.ts";

/** What our package imports of JSR, as stand-ins. */
const standIns = {
  "@denops/std": { version: "8.99.0", exports: { ".": "./compat/denops.ts" } },
  "@std/assert": { version: "1.99.0", exports: { ".": "./compat/assert.ts" } },
  "@std/cli": { version: "1.99.0", exports: { "./parse-args": "./compat/parse_args.ts" } },
};

/** Runs deno against the registry with a cache of its own; what it printed on both streams, once it has succeeded. */
async function deno(registry: Registry, home: string, args: string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args,
    cwd,
    env: { JSR_URL: registry.url, DENO_DIR: join(home, "cache"), NO_COLOR: "1" },
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(success, `deno ${args.join(" ")}\n${out}\n${err}`);
  return out + err;
}

/** The last line that the program below prints. */
const parseLosses = (printed: string): number[] =>
  JSON.parse(printed.split("\n").find((line) => line.startsWith("["))!);

/** The README's seven lines, on the model that the package has. */
const program = `
import { loadModel, lora, openDevice, train } from "jsr:@lowrank/lowrank@^0";
import { lettersBase } from "jsr:@lowrank/lowrank@^0/models";
using device = await openDevice();
using model = await loadModel(lettersBase, { device });
const tuned = lora(model, { r: 4, alpha: 8, targets: "all-linear" });
const run = await train(tuned, { data: "rows.jsonl", steps: 8, lr: 5e-3 });
await run.tuned.save("adapter");
for await (const piece of run.tuned.chat("Dear Ada,", { maxNewTokens: 4 })) console.log("piece " + piece);
run.tuned.merge();
console.log(JSON.stringify(run.losses));
`;
const rows = [{ prompt: "Dear Ada, ", completion: "hello." }, { prompt: "Dear Bob, ", completion: "goodbye." }];

Deno.test("what is published trains, saves and merges in a program elsewhere, and brings a command line", async (t) => {
  await using registry = startRegistry(standIns);
  const home = Deno.makeTempDirSync({ prefix: "lowrank-jsr-" });
  try {
    await t.step("deno publish takes it, without slow types", async () => {
      const publish = ["publish", "--token", "x", "--no-provenance", "--allow-dirty", "--quiet"];
      await deno(registry, home, publish, ".");
      const { files } = registry.packages.get("@lowrank/lowrank")!;
      const strange = [...files.keys()].filter((path) =>
        /_test\.ts$|^\/(bench|compat|docs|tools|denops|plugin)\//.test(path)
      );
      assertEquals(strange, []);
      for (const path of ["/mod.ts", "/README.md", "/LICENSE", "/NOTICE"]) assert(files.has(path), path);
      const sources = [...files].filter(([path]) => path.endsWith(".ts"));
      for (const [path, bytes] of sources) {
        assert(
          !/from "(@std|@huggingface|fast-check)/.test(new TextDecoder().decode(bytes)),
          `${path} has a bare import`,
        );
      }
    });
    await t.step("the tests of this folder run on packages from it", async () => {
      // Without the lock file: what these stand-ins hash to is nobody else's business.
      const launch = [
        "run",
        "--quiet",
        "--no-lock",
        "--allow-run=deno",
        "--allow-env",
        "--allow-import",
        "tools/launch.ts",
      ];
      const tests = ["core/transforms/grad_test.ts", "compat/assert_test.ts", "denops/lowrank/main.ts"];
      const out = await deno(registry, home, [...launch, "test", "--no-lock", "--allow-read", ...tests], ".");
      assertStringIncludes(out, "0 failed");
      assert(!out.includes("stand-ins of offline.json"), out);
    });
    const folder = join(home, "user");
    Deno.mkdirSync(folder);
    await t.step("a program imports it", async () => {
      Deno.writeTextFileSync(join(folder, "program.ts"), program);
      Deno.writeTextFileSync(join(folder, "rows.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"));
      const allow = ["--allow-read", "--allow-write=adapter", "--allow-net=127.0.0.1"];
      const losses = parseLosses(
        await deno(registry, home, ["run", "--check", "--quiet", ...allow, "program.ts"], folder),
      );
      assertEquals(losses.length, 8);
      assert(losses[7] < losses[0], `${losses}`);
      assert(Deno.statSync(join(folder, "adapter/adapter_model.safetensors")).size > 10_000);
    });
    await t.step("its command line runs, and can be installed", async () => {
      const help = await deno(registry, home, ["run", "--quiet", "jsr:@lowrank/lowrank@^0/cli", "--help"], folder);
      assertStringIncludes(help, "lowrank train");
      const install = ["install", "--quiet", "--global", "--root", home, "--name", "lowrank"];
      await deno(registry, home, [...install, "--allow-read", "jsr:@lowrank/lowrank@^0/cli"], folder);
      assert(Deno.readTextFileSync(join(home, "bin", "lowrank")).includes("@lowrank/lowrank"));
    });
  } finally {
    Deno.removeSync(home, { recursive: true });
  }
});
