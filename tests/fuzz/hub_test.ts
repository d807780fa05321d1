/**
 * A hub whose answers are mutated: one sentence, and nothing outside the cache. `deno task test:fuzz` tries 10,000, drawn
 * at random each time; without a number some are tried, always the same.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import { LowrankError } from "../../core/errors.ts";
import { commit, startHub } from "../attack/hub_server.ts";
import { edits, mutate } from "./mutations.ts";

const wanted = Deno.args[0] === undefined ? null : Number(Deno.args[0]);
const runs = wanted ?? 100;

const bodies = {
  info: JSON.stringify({ id: "owner/name", sha: commit }),
  tree: JSON.stringify(["config.json", "model.safetensors"].map((path) => ({
    ...{ type: "file", path, size: 21, oid: "a".repeat(40), lfs: { oid: "b".repeat(64), size: 21 } },
  }))),
};
const wrongText = fc.constantFrom("../up", "/etc/passwd", "a\\b", "\x1b]0;x\x07", "\0", "x".repeat(300), "..", "");
/** What replaces a text of an answer: a name or hash that leads elsewhere. */
const answers = fc.record({
  at: fc.constantFrom(...Object.keys(bodies) as (keyof typeof bodies)[]),
  changes: edits,
  put: fc.option(fc.tuple(fc.constantFrom(commit, "config.json", "a".repeat(40), "b".repeat(64)), wrongText)),
  status: fc.oneof({ weight: 4, arbitrary: fc.constant(200) }, fc.constantFrom(206, 301, 400, 401, 404, 429, 500, 503)),
  headers: fc.constantFrom<Record<string, string>>(
    {},
    { link: '<http://[/>; rel="next"' },
    { link: '</x>; rel="next"' },
    { link: '<file:///etc/hostname>; rel="next"' },
    { "content-type": "text/html" },
    { "content-encoding": "gzip" },
    { location: "/elsewhere" },
  ),
});

Deno.test(`a hub that answers anything: a sentence or a model for ${runs} answers`, async () => {
  const root = Deno.makeTempDirSync();
  let current: { at: string; status: number; headers: Record<string, string>; body: Uint8Array<ArrayBuffer> };
  await using hub = startHub((path) => {
    const at = path.includes("/tree/") ? "tree" : path.includes("/revision/") ? "info" : undefined;
    if (at === undefined) return new Response("", { status: 404 }); // files have their own tests
    if (at !== current.at) return new Response(bodies[at]);
    return new Response(current.body, {
      status: current.status,
      headers: { "retry-after": "0", ...current.headers },
    });
  });
  const env = { HF_HUB_CACHE: join(root, "cache"), HF_HUB_DOWNLOAD_TIMEOUT: "5" };
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(answers, async ({ at, changes, put, status, headers }) => {
      const text = put === null ? bodies[at] : bodies[at].replace(put[0], () => JSON.stringify(put[1]).slice(1, -1));
      const bytes = new TextEncoder().encode(text);
      current = { at, status, headers, body: new Uint8Array(put === null ? mutate(bytes, changes) : bytes) };
      try {
        await hub.download("owner/name", { env });
      } catch (error) {
        if (!(error instanceof LowrankError)) throw error;
        assert(!error.message.includes("\n"), error.message);
        refused++;
      }
      assertEquals([...Deno.readDirSync(root)].map(({ name }) => name).filter((name) => name !== "cache"), []);
    }),
    wanted === null ? { numRuns: runs, seed: 1 } : { numRuns: runs },
  );
  assert(refused > 0, "nothing was refused");
  Deno.removeSync(root, { recursive: true });
});
