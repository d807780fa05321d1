/** all-MiniLM-L6-v2: its token ids, its sentence embeddings, what an adapter on it trains. */
import { assert, assertEquals } from "@std/assert";
import type { HostTensor } from "../../core/tensor.ts";
import { lora } from "../../lora/lora.ts";
import { bert } from "../../models/mod.ts";
import { embedder } from "../../models/embed.ts";
import { openModelFiles } from "../../models/load/model_files.ts";
import { encoderInputs } from "../goldens/encoder_cases.ts";
import { type OpenRuntime, runtimes } from "../runtimes.ts";
import { minilm, real } from "./real_case.ts";

const needs = "real-minilm";

real("MiniLM: token ids of sentences and of a pair", needs, (golden) => {
  using files = openModelFiles(minilm, ["bert"]);
  const tokenizer = files.tokenizer();
  const { sentences, pairs } = golden.json("tokens.json");
  for (const { text, ids } of sentences) assertEquals(tokenizer.encode(text), ids);
  for (const { a, b, ids, token_type_ids } of pairs) {
    assertEquals(tokenizer.encodePair(a, b), { ids, tokenTypeIds: token_type_ids });
  }
}, minilm);

/** The largest difference that case.json allows. */
const apart = 1e-5;

function assertApart(what: string, actual: HostTensor, expected: HostTensor): void {
  assertEquals(actual.shape, expected.shape);
  const worst = Math.max(...Array.from(expected.data, (x, i) => Math.abs(x - actual.data[i])));
  assert(worst <= apart, `${what} differ by ${worst}`);
}

for (const { name, open } of runtimes.filter(({ name }) => name !== "the oracle")) {
  real(`MiniLM on ${name}: sentence embeddings`, needs, async (golden) => {
    using runtime: OpenRuntime = await open();
    using model = await bert.load(minilm, { device: runtime.home });
    const io = golden.tensors("io.safetensors");
    const embeddings = await runtime.read(runtime.jit(model.embed)(model.params, encoderInputs(io, "", runtime)));
    assertApart("embeddings", embeddings, io.get("embeddings")!);
    const [count, width] = embeddings.shape;
    const row = (i: number) => embeddings.data.slice(i * width, (i + 1) * width);
    const cosines = Float32Array.from(
      { length: count * count },
      (_, at) =>
        row(Math.floor(at / count)).reduce((sum: number, x: number, d: number) => sum + x * row(at % count)[d], 0),
    );
    // From texts, in batches of other lengths.
    const tokenizer = model.tokenizer();
    const rows = golden.json("tokens.json").sentences.map(({ text }: { text: string }) => tokenizer.encode(text));
    const made = await embedder(model, { batch: 3 })(model.params, rows);
    assertApart(
      "embeddings of texts",
      { ...embeddings, data: Float32Array.from(made.flatMap((x) => [...x])) },
      embeddings,
    );
    assertApart("cosines", { dtype: "f32", shape: [count, count], data: cosines }, io.get("similarity")!);
  }, minilm);
}

real("MiniLM: an adapter of rank 8 on queries and values has 73,728 numbers", needs, async () => {
  using runtime = await runtimes[1].open();
  using model = await bert.load(minilm, { device: runtime.home });
  const { matched } = lora(model, { r: 8, alpha: 16, targets: ["query", "value"] });
  assertEquals(matched.reduce((sum, { trainable }) => sum + trainable, 0), 73_728);
}, minilm);
