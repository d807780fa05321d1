/** A merged model costs nothing: it runs the very program of the base. */
import { assertEquals } from "@std/assert";
import { type Operand, upload } from "../../core/tensor.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import type { Tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { lora } from "../../lora/lora.ts";
import { gpt2, type Gpt2Params } from "../../models/families/gpt2.ts";
import { parseConfig } from "../../models/load/config.ts";
import type { Trainable } from "../../lora/mod.ts";

Deno.test("a merged GPT-2 runs the very program of its base, and nothing else", async () => {
  using device = await openCpu({ threads: 1, blas: false });
  const programs: string[] = [];
  const compile = device.compile.bind(device);
  device.compile = (program) => {
    programs.push(JSON.stringify(program));
    return compile(program);
  };
  const file = { model_type: "gpt2", vocab_size: 50, n_positions: 8, n_embd: 8, n_layer: 2, n_head: 2 };
  const config = gpt2.sizes(parseConfig(file, "config.json"));
  const isShape = (x: unknown) => Array.isArray(x) && typeof x[0] === "number";
  const values = (shape: readonly number[]) =>
    upload(device, {
      shape,
      dtype: "f32",
      data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i)),
    });
  const params = mapTree(gpt2.shapes(config), (shape: number[]) => values(shape), isShape);
  const model = gpt2.over(config, params as never);
  const tuned = lora(model, { r: 2, alpha: 4, targets: ["c_attn", "c_fc"] });
  const trainable = mapTree(tuned.trainable, (leaf) => values((leaf as Tensor).shape)) as typeof tuned.trainable;
  const merged = jit((t: Trainable, p: Gpt2Params) => tuned.merge(t, p))(trainable, model.params);
  const inputIds = upload(device, { shape: [1, 8], dtype: "i32", data: Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8]) });

  // Two functions, of which the second is traced with the merged tree.
  programs.length = 0;
  const base = jit((p: Gpt2Params, ids: Operand) => model.apply(p, { inputIds: ids }))(model.params, inputIds);
  const after = jit((p: Gpt2Params, ids: Operand) => model.apply(p, { inputIds: ids }))(merged, inputIds);
  assertEquals(programs.length, 1, "both run one program of the device");
  const adapted = jit((t: Trainable, p: Gpt2Params, ids: Operand) => tuned.apply(t, p, { inputIds: ids }))(
    trainable,
    model.params,
    inputIds,
  );
  assertEquals(programs.length, 2);
  assertEquals(programs[1] === programs[0], false, "the unmerged model has work of its own");
  for (const leaf of flatten<Tensor>([trainable, merged, model.params, inputIds, base, after, adapted]).leaves) {
    leaf.dispose();
  }
});
