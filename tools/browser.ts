/**
 * `browser.ts [--serve [PORT]]`: builds examples/browser into out/browser, which any static server can serve. With `--serve`
 * this does, with the two headers that let a page share memory between threads.
 */
import { parseArgs } from "node:util";
import plotStyle from "npm:uplot@1.6.32/dist/uPlot.min.css" with { type: "text" };

/** Where the page is built. */
export const site = "out/browser";

const headers = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const types: Record<string, string> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript",
  css: "text/css",
  json: "application/json",
};

/** Bundles a module for browsers; `replace` gives further modules in place of imports, by path from the root. */
export async function bundle(module: string, out: string, replace: Record<string, string> = {}): Promise<void> {
  const map = await Deno.makeTempFile({ suffix: ".json" });
  const { imports } = JSON.parse(await Deno.readTextFile("offline.json")); // its stand-ins need no registry
  const absent = "./examples/browser/not_in_pages.ts";
  const ofDeno = ["node:crypto", "node:fs", "node:process", "@huggingface/hub"];
  Object.assign(imports, Object.fromEntries(ofDeno.map((name) => [name, absent])), replace);
  for (const [name, target] of Object.entries<string>(imports)) {
    if (target.startsWith("./")) imports[name] = new URL(`.${target}`, import.meta.url).href;
  }
  await Deno.writeTextFile(map, JSON.stringify({ imports }));
  const args = ["bundle", "--quiet", "--platform=browser", "--minify", "--import-map", map, "--output", out, module];
  const { success, stderr } = await new Deno.Command("deno", { args, env: { NO_COLOR: "1" } }).output();
  await Deno.remove(map);
  if (!success) throw new Error(`${module} could not be bundled:\n${new TextDecoder().decode(stderr)}`);
  const [, name] = /(?:from|import\()\s*"(node:\w+)"/.exec(await Deno.readTextFile(out)) ?? [];
  if (name) throw new Error(`${module} imports ${name}, which no page has: name it in tools/browser.ts`);
}

/** Builds the page. */
export async function buildSite(): Promise<void> {
  await Deno.mkdir(`${site}/letters-base`, { recursive: true });
  for (const name of ["page", "engine"]) await bundle(`examples/browser/${name}.ts`, `${site}/${name}.js`);
  for (const name of ["index.html", "style.css"]) await Deno.copyFile(`examples/browser/${name}`, `${site}/${name}`);
  await Deno.writeTextFile(`${site}/uplot.css`, plotStyle);
  for (const { name } of Deno.readDirSync("assets/letters-base")) {
    await Deno.copyFile(`assets/letters-base/${name}`, `${site}/letters-base/${name}`);
  }
}

/** Serves a folder; without `isolated`, as a server that knows of no headers. */
export function serveFolder(folder: string, port: number, isolated = true): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ port, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
    try {
      const path = decodeURIComponent(new URL(request.url).pathname);
      const file = path.endsWith("/") ? `${path}index.html` : path;
      if (file.includes("..")) return new Response("no", { status: 400 });
      const type = types[file.slice(file.lastIndexOf(".") + 1)] ?? "application/octet-stream";
      const body = await Deno.readFile(folder + file);
      return new Response(body, { headers: { "content-type": type, ...(isolated && headers) } });
    } catch {
      return new Response("not found", { status: 404 });
    }
  });
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({ options: { serve: { type: "boolean" } }, allowPositionals: true });
  await buildSite();
  console.log(`built ${site}: any static server can serve it`);
  if (values.serve) {
    const port = positionals[0] ?? "8000";
    try {
      const { addr } = serveFolder(site, Number(port));
      console.log(`open http://localhost:${addr.port}`);
    } catch (error) {
      console.error(`error: nothing can be served on port ${port} (${(error as Error).message}): name another port`);
      Deno.exit(1);
    }
  }
}
