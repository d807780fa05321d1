/** Real llama.cpp runs a small model of every architecture whose GGUF files are read: the same logits as ours. */
import { assert } from "@std/assert";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { families } from "../../models/families/mod.ts";
import type { GgufFamily } from "../../models/load/gguf/names.ts";
import { loaderOf } from "../../models/load/loader.ts";
import { configOf, ggufOf, layersOf } from "../small_models.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";

const prompt = [5, 17, 20, 3, 39, 12, 7, 25, 30, 1, 14];

for (const family of families.filter((family): family is GgufFamily => family.gguf !== undefined)) {
  // A file of several families' name is of the first.
  if (families.find(({ gguf }) => gguf?.name === family.gguf.name) !== family) continue;
  peer(`llama.cpp gives our logits for ${family.gguf.name}`, async (folder) => {
    const file = `${folder}/a.gguf`;
    const config = configOf(family), { headDim } = family.keys;
    // llama.cpp gives some of them no heads but those that share the width.
    const narrow = { ...config, ...(headDim && { [headDim]: 4 }) };
    Deno.writeFileSync(file, ggufOf(family, narrow));
    using device = await openCpu();
    using model: any = await loaderOf<any, any, any>(family).load(file, { device });
    const logits = model.apply(model.params, { inputIds: tensor(device, [prompt], "i32") });
    const { data } = await evaluate(logits) as HostTensor;
    await runScript("llama_cpp_logits.py", { model: file, prompts: [prompt], out: `${folder}/logits` });
    const found = apart(readFloats(`${folder}/logits`), data);
    // gelu is looked up there in a table of f16: two roundings of 2⁻¹¹ a layer, which the norms after it enlarge.
    const gelu = /gelu/.test(JSON.stringify(family.gguf.config({ has: () => false })));
    const bound = gelu ? layersOf(family) * 2 ** -9 : 1e-4;
    assert(found <= bound, `${found} apart`);
  });
}
