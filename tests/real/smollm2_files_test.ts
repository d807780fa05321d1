/** SmolLM2's own GGUF: its token ids, its chat template, its weights in Hugging Face's order. */
import { assertEquals } from "@std/assert";
import { pathKind } from "../../models/load/byte_source.ts";
import { openGguf } from "../../models/load/gguf_source.ts";
import { openModelFiles } from "../../models/load/model_files.ts";

const model = ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const goldens = `${import.meta.dirname}/../goldens/real`;

function real(name: string, needs: string, body: (golden: string) => void | Promise<void>): void {
  const absent = [model, `${goldens}/${needs}`].find((path) => pathKind(path) === null);
  const title = absent === undefined
    ? name
    : `${name}: skipped, ${absent} is not here (./task model:smollm2 brings the model)`;
  Deno.test({ name: title, ignore: absent !== undefined, fn: () => body(`${goldens}/${needs}`) });
}

const json = (path: string) => JSON.parse(Deno.readTextFileSync(path));

real("SmolLM2: token ids and chat template", "real-smollm2-tokens", (golden) => {
  using files = openModelFiles(model, ["llama"]);
  const tokenizer = files.tokenizer();
  const { strings, prompts } = json(`${golden}/tokens.json`);
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
  for (const { name, shape_gguf: shape, sha256_f32: sum } of json(`${golden}/dequant.json`).tensors) {
    assertEquals(source.tensors.get(name)!.shape, shape.toReversed());
    assertEquals({ name, sum: await sha256(source.readOwn(name)) }, { name, sum });
  }
  for (const [name, { shape, sha256_f32: sum }] of Object.entries<any>(json(`${golden}/hf_weights.json`))) {
    const { data, shape: read } = source.read(name, "f32");
    assertEquals({ name, shape: read, sum: await sha256(data as Float32Array) }, { name, shape, sum });
  }
});
