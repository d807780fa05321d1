import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { FileError } from "../../../core/errors.ts";
import { commit, startHub, weights } from "../../../tests/attack/hub_server.ts";
import { download } from "./hub.ts";
import { readFolderConfig } from "../model_files.ts";

Deno.test("a repository is downloaded once, into Hugging Face's layout, and found offline", async () => {
  await using hub = startHub();
  const seen: [number, number][] = [];
  const folder = await hub.download("owner/name", { onDownload: (...progress) => seen.push(progress) });
  assertEquals(folder, join(hub.cache, "models--owner--name", "snapshots", commit));
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["config.json", "model.safetensors"]);
  assertEquals(Deno.readFileSync(join(folder, "model.safetensors")), weights);
  assertEquals(Deno.readTextFileSync(join(hub.cache, "models--owner--name", "refs", "main")), commit);
  assertEquals(Deno.readFileSync(hub.blob), weights);
  assertEquals(seen.at(-1), [weights.length + 21, weights.length + 21]);
  const before = hub.asked.length;
  assertEquals(await hub.download(), folder);
  assertEquals(hub.asked.slice(before), ["main", commit], "nothing is downloaded twice");
  assertEquals(await hub.download("owner/name", { env: { HF_HUB_OFFLINE: "1" } }), folder);
  assertEquals(hub.asked.length, before + 2, "offline means offline");
});

Deno.test("what is here is itself, and needs neither network nor environment", async () => {
  assertEquals(await download("models/load"), "models/load");
  assertEquals(await download("./owner/name"), "./owner/name");
  assertEquals(await download("/no/such/folder"), "/no/such/folder");
});

Deno.test("a download that broke off goes on where it ended, also in a later run", async () => {
  let drops = 2;
  await using hub = startHub((path) =>
    path.endsWith(".safetensors") && drops-- > 0
      ? new Response(
        new ReadableStream({
          start(controller) {
            controller.enqueue(weights.slice(0, 100_000));
            controller.close();
          },
        }),
      )
      : undefined
  );
  await Deno.mkdir(join(hub.blob, ".."), { recursive: true });
  const folder = await hub.download();
  assertEquals(Deno.readFileSync(join(folder, "model.safetensors")), weights);
  const ranges = hub.asked.filter((line) => line.startsWith("model.safetensors bytes="));
  assert(ranges.length > 0, hub.asked.join("\n"));

  Deno.removeSync(join(folder, "model.safetensors"));
  Deno.removeSync(hub.blob);
  Deno.writeFileSync(`${hub.blob}.incomplete`, weights.slice(0, 250_000));
  await hub.download();
  assertEquals(hub.asked.at(-1), "model.safetensors bytes=250000-");
  assertEquals(Deno.readFileSync(hub.blob), weights);
});

Deno.test("bytes that are not what the hub lists are thrown away", async () => {
  await using hub = startHub((path) =>
    path.endsWith(".safetensors") ? new Response(weights.map((b, i) => i === 5 ? b + 1 : b)) : undefined
  );
  await assertRejects(() => hub.download(), FileError, "model.safetensors came as 300000 bytes with the hash");
  assertEquals([...Deno.readDirSync(join(hub.blob, ".."))].length, 1, "only config.json's blob is kept");
});

Deno.test("a configuration that is not known ends a download before its weights", async () => {
  await using hub = startHub();
  const accept = (folder: string) => void readFolderConfig(folder, ["llama"]);
  await assertRejects(
    () => hub.download("owner/name", { accept }),
    FileError,
    "is of the architecture gpt2; supported:",
  );
  assertEquals(hub.asked.filter((line) => line.startsWith("model")), []);
  assert(
    (await hub.download("owner/name", { accept: (folder) => void readFolderConfig(folder, ["gpt2"]) })).length > 0,
  );
});

Deno.test("a busy hub is waited for", async () => {
  let busy = 2;
  await using hub = startHub(() =>
    busy-- > 0 ? new Response("slow down", { status: 429, headers: { "retry-after": "0" } }) : undefined
  );
  assert((await hub.download()).endsWith(commit));
});

Deno.test("what the hub refuses is one sentence", async (t) => {
  const always = (status: number) => () => new Response("no", { status, headers: { "retry-after": "0" } });
  const cases: [string, ReturnType<typeof always> | undefined, string, Record<string, string>, string][] = [
    ["no such repository", undefined, "owner/other", {}, "has no repository of this name with the revision main"],
    ["no such file", undefined, "owner/name/model.gguf", {}, "the repository has no such file"],
    ["gated, no token", always(401), "owner/name", {}, "a stranger may not read it"],
    ["gated, a token", always(403), "owner/name", { HF_TOKEN: "hf_x" }, "this HF_TOKEN may not read it"],
    ["too many requests", always(429), "owner/name", {}, "asks to slow down (429)"],
    ["out of order", always(500), "owner/name", {}, "answered with status 500"],
    ["not cached", undefined, "owner/name", { HF_HUB_OFFLINE: "1" }, "HF_HUB_OFFLINE is set"],
    ["nobody there", undefined, "owner/name", { HF_ENDPOINT: "http://127.0.0.1:9" }, "127.0.0.1:9 can't be reached"],
  ];
  for (const [name, answer, place, env, sentence] of cases) {
    await t.step(name, async () => {
      await using hub = startHub(answer);
      const error = await assertRejects(() => hub.download(place, { env }), FileError, sentence);
      assertEquals(error.message.includes("\n"), false);
    });
  }
});
