/** A hub that answers as it likes: nothing leaves the cache, nothing is without an end, and each answer is one sentence. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { FileError } from "../../core/errors.ts";
import { type Answer, commit, startHub, weights } from "./hub_server.ts";
import { denoCommand, heard } from "./command.ts";

const tree = `/api/models/owner/name/tree/${commit}`, info = "/api/models/owner/name/revision/main";
const config = '{"model_type":"gpt2"}';

const to = (place: string, answer: () => Response | Promise<Response>): Answer => (path) =>
  path.endsWith(place) ? answer() : undefined;
const named = (sha: unknown) => to(info, () => Response.json({ id: "owner/name", sha }));
const listed = (...entries: unknown[]) =>
  to(
    tree,
    () => Response.json([{ type: "file", path: "model.safetensors", size: 1, oid: "a".repeat(40) }, ...entries]),
  );
const entry = (more: object) => listed({ type: "file", path: "x.json", size: 1, oid: "b".repeat(40), ...more });
const endless = () => new Response(new ReadableStream({ pull: (c) => c.enqueue(new Uint8Array(1 << 16).fill(32)) }));
const silent = () => new Promise<Response>((done) => setTimeout(() => done(new Response("{}")), 1500));
const stalled = () =>
  new Response(new ReadableStream({ start: (c) => c.enqueue(new TextEncoder().encode(config.slice(0, 5))) }));
const bomb = await new Response(
  new Blob([new Uint8Array(30e6)]).stream().pipeThrough(new CompressionStream("gzip")),
).bytes();
const zipped = () => new Response(bomb, { headers: { "content-encoding": "gzip" } });
const busy = (wait: string) => () => new Response("", { status: 429, headers: { "retry-after": wait } });

/** What it answers, and the error. */
const answers: [string, Answer, string][] = [
  ["a commit above the cache", named("../../../outside"), "as the commit of owner/name, which is not a commit hash"],
  [
    "a commit that is another repository's",
    named("../../models--a--b/snapshots/" + "f".repeat(40)),
    "which is not a commit hash",
  ],
  ["no commit", named(undefined), "which is not a commit hash"],
  ["a commit with a NUL", named("\0".repeat(40)), "which is not a commit hash"],
  ["a hash that is a path", entry({ oid: "../../../SECRET" }), "which is not a hash"],
  ["a hash of large files that is a path", entry({ lfs: { oid: "/etc/passwd" } }), "which is not a hash"],
  ["a number as a hash", entry({ oid: 7 }), "which is not a hash"],
  ["a name with backslashes", entry({ path: "..\\..\\evil.json" }), "a name that no file here may have"],
  ["a name with a control character", entry({ path: "\x1b]0;x\x07.json" }), "a name that no file here may have"],
  ["a name of 300 letters", entry({ path: "a".repeat(300) + ".json" }), "a name that no file here may have"],
  ["a size below 0", entry({ size: -1 }), "a size of -1"],
  ["no size", entry({ size: null }), "a size of null"],
  ["a size in words", entry({ size: "x" }), 'a size of "x"'],
  ["null in a list", listed(null), "with other JSON"],
  ["an object for a list", to(tree, () => Response.json({})), "with other JSON"],
  ["null", to(info, () => Response.json(null)), "with other JSON"],
  ["a page with status 200", to(info, () => new Response("<html>sign in</html>")), "with something that is not JSON"],
  ["a list without an end", to(tree, endless), "with more than 67108864 bytes"],
  [
    "pages without an end",
    to(tree, () => Response.json([], { headers: { link: `<http://${"H"}${tree}>; rel="next"` } })),
    "",
  ],
  ["a file without an end", to("config.json", endless), "came as more than 21 bytes"],
  ["a small file that is a large one, compressed", to("config.json", zipped), "came as more than 21 bytes"],
  ["silence", to("config.json", silent), "nothing came in 0.2 seconds"],
  ["silence before it says what it has", to(info, silent), "nothing came in 0.2 seconds"],
  ["silence in the middle", to("config.json", stalled), "nothing came in 0.2 seconds"],
  ["a wait of a day", to(info, busy("86400")), "asks to slow down (429, asking for 86,400 seconds)"],
  [
    "a wait until another century",
    to(info, busy("Wed, 21 Oct 2099 07:28:00 GMT")),
    "asks to slow down (429, asking for",
  ],
  ["a wait of less than nothing", to(info, busy("-5")), "asks to slow down (429)"],
];

for (const [name, answer, sentence] of answers) {
  Deno.test(`a hub answers with ${name}`, async () => {
    const root = Deno.makeTempDirSync();
    await using hub = startHub((path, request) => {
      const found = answer(path, request);
      // A link has to name this server, whose port was not known.
      if (!(found instanceof Response) || !found.headers.has("link")) return found;
      found.headers.set("link", found.headers.get("link")!.replace("//H/", `//${new URL(request.url).host}/`));
      return found;
    });
    const cache = join(root, "cache", "hub");
    const env = { HF_HUB_CACHE: cache, HF_HUB_DOWNLOAD_TIMEOUT: "0.2" };
    const error = await assertRejects(
      () => hub.download("owner/name", { env }),
      FileError,
      sentence || "with more than 1000 pages",
    );
    assertEquals([error.message.includes("\n"), sizeOf(root) < 1e6], [false, true], error.message);
    assertEquals([...Deno.readDirSync(root)].filter(({ name }) => name !== "cache"), []);
    Deno.removeSync(root, { recursive: true });
  });
}

Deno.test("a token goes to the hub alone, whatever it points to", async () => {
  const heardOf: (string | null)[] = [];
  const other = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    heardOf.push(request.headers.get("authorization"));
    return Response.json([]);
  });
  const elsewhere = `http://127.0.0.1:${other.addr.port}`;
  let own = 0;
  await using hub = startHub((path, request) => {
    if (request.headers.get("authorization") === "Bearer hf_SECRET") own++;
    if (path === tree) {
      return Response.json([{ type: "file", path: "config.json", size: 21, oid: "a".repeat(40) }], {
        headers: { link: `<${elsewhere}${tree}?cursor=2>; rel="next"` },
      });
    }
    return path.endsWith("config.json") ? Response.redirect(`${elsewhere}/config.json`) : undefined;
  });
  await assertRejects(() => hub.download("owner/name", { env: { HF_TOKEN: "hf_SECRET" } }), FileError);
  await other.shutdown();
  assert(own >= 2 && heardOf.length >= 1);
  assertEquals(new Set(heardOf), new Set([null]));
});

Deno.test("a snapshot that an earlier version left half is made whole, and each file is once on the disk", async () => {
  await using hub = startHub();
  const folder = await hub.download();
  const path = join(folder, "model.safetensors");
  Deno.removeSync(path);
  Deno.writeFileSync(path, weights.subarray(0, 1000));
  await hub.download();
  assertEquals(Deno.readFileSync(path), weights);
  assertEquals(Deno.statSync(path).ino, Deno.statSync(hub.blob).ino);
});

Deno.test("four processes that download one repository at once all have it", async () => {
  await using hub = startHub((path) =>
    path.endsWith(".safetensors")
      ? new Response(
        new ReadableStream({
          async start(controller) {
            for (let at = 0; at < weights.length; at += 50_000) {
              controller.enqueue(weights.slice(at, at + 50_000));
              await new Promise((done) => setTimeout(done, 50));
            }
            controller.close();
          },
        }),
      )
      : undefined
  );
  const permissions = ["--allow-net=127.0.0.1", "--allow-env", `--allow-write=${hub.cache}`];
  const [program, ...args] = denoCommand(["inspect", "owner/name"], permissions);
  const all = await Promise.all([1, 2, 3, 4].map(() => {
    const env = { ...hub.variables, NO_COLOR: "1" };
    return heard(new Deno.Command(program, { args, env, stdin: "null", stdout: "piped", stderr: "piped" }).spawn());
  }));
  // These weights are none; all that matters is that each process came to read them.
  for (const { err } of all) assert(/^error: .*snapshots.*\n$/m.test(err) && !err.includes("bug"), err);
  assertEquals(Deno.readFileSync(hub.blob), weights);
  const blobs = [...Deno.readDirSync(join(hub.blob, ".."))].map(({ name }) => name);
  assertEquals(blobs.filter((name) => name.includes(".")), []);
});

function sizeOf(folder: string): number {
  let bytes = 0;
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    bytes += isDirectory ? sizeOf(join(folder, name)) : Deno.lstatSync(join(folder, name)).size;
  }
  return bytes;
}
