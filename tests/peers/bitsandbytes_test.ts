/** Checkpoints that real bitsandbytes packed: opened dequantised and packed, they give its weights' logits. */
import { assert, assertEquals } from "@std/assert";
import { isPacked } from "../../core/packed/blocks.ts";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { llama } from "../../models/mod.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";

const kinds = {
  nf4: { bnb_4bit_quant_type: "nf4" },
  "nf4-double": { bnb_4bit_quant_type: "nf4", bnb_4bit_use_double_quant: true },
  fp4: { bnb_4bit_quant_type: "fp4" },
  "fp4-double": { bnb_4bit_quant_type: "fp4", bnb_4bit_use_double_quant: true },
  "nf4-in-bfloat16": { bnb_4bit_quant_type: "nf4", bnb_4bit_quant_storage: "bfloat16" },
};

peer("what bitsandbytes packed opens dequantised and packed", async (folder) => {
  const ids = [5, 17, 99, 3, 42, 7, 150, 1];
  await runScript("bitsandbytes_saved.py", { folder, ids, kinds });
  using device = await openCpu();
  for (const name of Object.keys(kinds)) {
    for (const dtype of [undefined, "packed"] as const) {
      using model = await llama.load(`${folder}/${name}`, { device, dtype });
      const { weight } = model.params.layers[0].self_attn.q_proj;
      assertEquals(isPacked((weight as unknown as HostTensor).dtype), dtype === "packed");
      const logits = await evaluate(
        model.apply(model.params, { inputIds: tensor(device, [ids], "i32") }),
      ) as HostTensor;
      const distance = apart(logits.data, readFloats(`${folder}/${name}.logits`));
      assert(distance <= 1e-5, `${name} as ${dtype}: ${distance} apart`);
    }
  }
});
