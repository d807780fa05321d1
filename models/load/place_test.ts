import { assertEquals, assertRejects } from "@std/assert";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { FileError } from "../../core/errors.ts";
import { lettersBase, type ModelPlace, openModel } from "./place.ts";

const bytesOf = (files: string[]) =>
  Object.fromEntries(files.map((f) => [f, Deno.readFileSync(`assets/letters-base/${f}`)]));
const all = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

Deno.test("one model, wherever it is", async (t) => {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, async (request) => {
    const file = new URL(request.url).pathname.slice(1);
    return all.includes(file)
      ? new Response(await Deno.readFile(`assets/letters-base/${file}`))
      : new Response("", { status: 404 });
  });
  const places: Record<string, ModelPlace> = {
    "a folder": "assets/letters-base",
    "a file URL": pathToFileURL(resolve("assets/letters-base")).href,
    "the library's own": lettersBase,
    "a web address": `http://127.0.0.1:${server.addr.port}/`,
    "memory": { name: "bytes", files: bytesOf(all) },
  };
  for (const [name, place] of Object.entries(places)) {
    await t.step(name, async () => {
      using files = await openModel(place, ["gpt2"], {});
      assertEquals(files.config.modelType, "gpt2");
      assertEquals(files.source.names.length > 10, true);
      const tokenizer = files.tokenizer();
      assertEquals(tokenizer.decode(tokenizer.encode("Dear Ada")), "Dear Ada");
    });
  }
  await server.shutdown();
});

Deno.test("what is not all there is one sentence", async (t) => {
  const cases: [string, ModelPlace, string][] = [
    ["no weights in memory", { name: "bytes", files: bytesOf(["config.json"]) }, "bytes has no model.safetensors"],
    ["nobody at the address", "http://127.0.0.1:9/model", "http://127.0.0.1:9/model/config.json can't be fetched"],
    ["another architecture", lettersBase, "supported: llama"],
  ];
  for (const [name, place, sentence] of cases) {
    await t.step(
      name,
      async () => void await assertRejects(() => openModel(place, ["llama"], {}), FileError, sentence),
    );
  }
});

Deno.test("what an address sends without an end is bounded", async () => {
  let sent = 0;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          controller.enqueue(new Uint8Array(1 << 20));
          sent += 1 << 20;
        },
      }),
    ));
  const place = `http://127.0.0.1:${server.addr.port}/`;
  await assertRejects(() => openModel(place, ["gpt2"], {}), FileError, "config.json is more than 134217728 bytes");
  assertEquals(sent < 2 ** 28, true);
  await server.shutdown();
});
