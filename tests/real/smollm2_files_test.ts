/** SmolLM2's own GGUF: its token ids, its chat template, its weights in Hugging Face's order. */
import { assertEquals } from "@std/assert";
import { openGguf } from "../../models/load/gguf/source.ts";
import { openModelFiles } from "../../models/load/model_files.ts";
import { real, smollm2 as model } from "./real_case.ts";

real("SmolLM2: token ids and chat template", "real-smollm2-tokens", (golden) => {
  using files = openModelFiles(model, ["llama"]);
  const tokenizer = files.tokenizer();
  const { strings, prompts } = golden.json("tokens.json");
  for (const { text, messages, rendered, ids, decoded } of [...strings, ...prompts]) {
    const written = messages === undefined
      ? text
      : tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true });
    if (rendered !== undefined) assertEquals(written, rendered);
    assertEquals(tokenizer.encode(written), ids);
    assertEquals(tokenizer.decode(ids), decoded);
  }
});

real("SmolLM2: every tensor dequantised bit for bit", "real-smollm2-dequant", async (golden) => {
  using source = openGguf(model);
  const sha256 = async (data: Float32Array) =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", data as BufferSource)).toHex();
  for (const { name, shape_gguf: shape, sha256_f32: sum } of golden.json("dequant.json").tensors) {
    assertEquals(source.tensors.get(name)!.shape, shape.toReversed());
    assertEquals({ name, sum: await sha256(source.readOwn(name)) }, { name, sum });
  }
  for (const [name, { shape, sha256_f32: sum }] of Object.entries<any>(golden.json("hf_weights.json"))) {
    const { data, shape: read } = source.read(name, "f32");
    assertEquals({ name, shape: read, sum: await sha256(data as Float32Array) }, { name, shape, sum });
  }
});
