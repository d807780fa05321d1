/** A batch whose rows use different adapters: each row as with its adapter alone, and the base's products made once for all. */
import { assert, assertEquals } from "@std/assert";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { Model } from "../../core/model.ts";
import { causalLoss } from "../../core/nn/loss.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { build } from "../../kernels/runtime/compile.ts";
import type { Program } from "../../kernels/ir/kernel.ts";
import { gamma } from "../../lora/bound.ts";
import { applyPerExample, lora, stackAdapters, type Trainable } from "../../lora/mod.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { fromOracle, toHost } from "../../testing/oracle.ts";
import { randomised } from "../../testing/toy_models.ts";
import { type OpenRuntime, oracleRuntime, runtimes } from "../runtimes.ts";

const base = `${import.meta.dirname}/../goldens/cases/gpt2-base/model`;
const [rows, tokens, adapters] = [4, 6, 3];
const adapterOf: HostTensor = { shape: [rows], dtype: "i32", data: Int32Array.of(2, 0, 1, 2) };
const inputIds: HostTensor = {
  shape: [rows, tokens],
  dtype: "i32",
  data: Int32Array.from({ length: rows * tokens }, (_, i) => 7 * i % 257),
};

const isHost = (x: unknown) => (x as HostTensor | null)?.data !== undefined;

/** The adapted model on a runtime, and three adapters with the same values on each. */
async function subject(runtime: OpenRuntime, dora: boolean) {
  const model = await loadModel(base, { device: runtime.home });
  const tuned = lora(model as Model<any, any, Value>, { r: 2, alpha: 4, targets: ["c_attn", "c_fc"], dora });
  const put = (host: HostTensor) => upload(runtime.home, host);
  const draw = (seed: number) =>
    mapTree(randomised(tuned.trainable, seed, 0.1), (x: Tensor) => put(toHost(fromOracle(x)))) as Trainable;
  return { model, tuned, put, list: Array.from({ length: adapters }, (_, i) => draw(11 * i)) };
}

/** Loss and gradients of each adapter over its own rows, weighed as a mean over all rows weighs them, by the oracle. */
async function alone(dora: boolean): Promise<{ loss: number; leaves: Float64Array[]; paths: string[] }[]> {
  const { tuned, put, list } = await subject(oracleRuntime, dora);
  const own = (t: any, f: any, ids: any) => causalLoss(tuned.apply(t, f, { inputIds: ids }), ids);
  const run = oracleRuntime.jit(valueAndGrad(own));
  return await Promise.all(list.map(async (t, adapter) => {
    const mine = [...adapterOf.data.keys()].filter((row) => adapterOf.data[row] === adapter);
    const data = Int32Array.from(mine.flatMap((row) => [...inputIds.data.slice(row * tokens, (row + 1) * tokens)]));
    const ids = put({ shape: [mine.length, tokens], dtype: "i32", data });
    const [loss, grads] = await oracleRuntime.read(run(t, tuned.frozen, ids));
    const share = mine.length / rows;
    const { leaves, paths } = flatten<HostTensor>(grads, isHost);
    return { loss: loss * share, leaves: leaves.map(({ data }) => Float64Array.from(data, (x) => x * share)), paths };
  }));
}

for (const dora of [false, true]) {
  for (const { name, open } of runtimes) {
    const title = `rows with their own adapters are as each alone, forward and back${dora ? ", with DoRA" : ""}`;
    Deno.test(`${name}: ${title}`, async () => {
      using runtime = await open();
      const { model, tuned, put, list } = await subject(runtime, dora);
      using _ = model;
      const loss = (list: Trainable[], f: any, ids: any, which: any) =>
        causalLoss(
          applyPerExample(tuned, {
            adapters: stackAdapters(list),
            frozen: f,
            inputs: { inputIds: ids },
            adapterOf: which,
          }),
          ids,
        );
      const run = runtime.jit(valueAndGrad(loss));
      const [value, grads] = await runtime.read(run(list, tuned.frozen, put(inputIds), put(adapterOf)));
      const expected = await alone(dora);
      expected.forEach(({ leaves, paths }, adapter) => {
        const found = flatten<HostTensor>(grads[adapter], isHost).leaves;
        leaves.forEach((want, i) => {
          const scale = want.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
          const apart = want.reduce((most, x, k) => Math.max(most, Math.abs(found[i].data[k] - x)), 0);
          // Some 24 sums of at most 257 terms lie on the way there and back.
          assert(apart <= 24 * gamma(257) * scale, `${paths[i]} of adapter ${adapter}: ${apart} of ${scale}`);
        });
      });
      const mean = expected.reduce((sum, { loss }) => sum + loss, 0);
      assert(Math.abs(value - mean) <= 24 * gamma(257) * mean, `${value}, ${mean}`);
    });
  }
}

/** How many steps of a program read an argument. */
const readers = ({ steps }: Program, argument: number) =>
  steps.filter(({ kernel, buffers }) =>
    kernel.kind === "contract" && buffers.some((b) => b.kind === "argument" && b.index === argument)
  ).length;

Deno.test("the plan has one product with each weight of the base, and one more to pull back through it", async () => {
  const placeholder = (x: { shape: readonly number[] }) => newInput({ shape: x.shape, dtype: "f32" });
  using runtime = await runtimes[0].open();
  using loaded = await loadModel(base, { device: runtime.home });
  const model = { ...loaded, params: mapTree(loaded.params, placeholder) } as unknown as Model<any, any, Value>;
  const tuned = lora(model, { r: 2, alpha: 4, targets: ["c_attn", "c_fc"] });
  const stacked = mapTree(tuned.trainable, (x: Value) => placeholder({ shape: [adapters, ...x.shape] }));
  const i32 = (...shape: number[]) => newInput({ shape, dtype: "i32" });
  const args = [stacked, tuned.frozen, i32(rows, tokens), i32(rows)];
  const apply = (t: any, f: any, ids: any, which: any) =>
    applyPerExample(tuned, { adapters: t, frozen: f, inputs: { inputIds: ids }, adapterOf: which });
  const forward = build(trace(apply, args).graph).program;
  const loss = (t: any, f: any, ids: any, which: any) => causalLoss(apply(t, f, ids, which), ids, {});
  const both = build(trace(valueAndGrad(loss), args).graph).program;
  const first = flatten(stacked).leaves.length;
  flatten(tuned.frozen).paths.forEach((path, i) => {
    if (!/^h\.\d\..*weight$/.test(path) || path.includes("ln_")) return;
    assertEquals(readers(forward, first + i), 1, `${path} forward`);
    // Nothing is pulled back through the lowest adapted weight.
    assertEquals(readers(both, first + i), path === "h.0.attn.c_attn.weight" ? 1 : 2, `${path} forward and back`);
  });
});
