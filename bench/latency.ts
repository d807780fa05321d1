/**
 * What does an adapter cost at inference, one sequence at a time? GPT-2 small with random weights: the base, the base with an
 * adapter merged in, with LoRA of rank 8 beside c_attn, beside all four linears of a block, and with bottleneck adapter
 * layers (Houlsby et al. 2019: two a block, 64 wide). The trunk alone, or with the head's logits of the last token.
 *
 * `deno run --allow-read --allow-env --allow-ffi bench/latency.ts [--no-blas] [--head] [--tokens 128] [--rounds 20]`: medians of
 * the ratios to the base, which runs before and after each of the others; half of the ratios lie between the quartiles. The
 * merged model runs the base's own program: its ratio says what the machine's noise is.
 */
import { parseArgs } from "node:util";
import type { Value } from "../core/ir/graph.ts";
import { attention } from "../core/nn/attention.ts";
import { geluTanh } from "../core/nn/activation.ts";
import { layerNorm } from "../core/nn/norm.ts";
import { reshape } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { matmul } from "../core/ops/contract.ts";
import { add, convert } from "../core/ops/elementwise.ts";
import { gather } from "../core/ops/indexing.ts";
import { iota, slice, split } from "../core/ops/structure.ts";
import { type Operand, Tensor, upload } from "../core/tensor.ts";
import { flatten, mapTree } from "../core/tree.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { lora } from "../lora/lora.ts";
import type { Gpt2Params } from "../models/families/gpt2.ts";
import { besideFirst, quartiles, row, sampleOf, warmUp } from "./alternate.ts";
import { randomIds, randomModel } from "./training.ts";
import type { Trainable } from "../lora/mod.ts";

const { values: flags } = parseArgs({
  args: Deno.args,
  options: {
    blas: { type: "boolean", default: true },
    tokens: { type: "string", default: "128" },
    head: { type: "boolean", default: false },
    rounds: { type: "string", default: "20" },
  },
  allowNegative: true,
});
const tokens = Number(flags.tokens);
const width = 768, heads = 12;
using device = await openCpu({ blas: flags.blas });
console.log(`${device.description}, 1 x ${tokens} tokens`);

const model = randomModel(device, "gpt2-small");
const params = model.params as unknown as Gpt2Params;
const ids = randomIds(device, "gpt2-small", [1, tokens]);

/** Down to 64, gelu, up again, added: one adapter layer. */
interface Bottleneck {
  readonly down: Operand;
  readonly up: Operand;
}

/** The trunk written out, with a bottleneck after each sublayer where there are any. */
function trunk(p: Gpt2Params, ids: Operand, layers?: readonly (readonly Bottleneck[])[]): Value {
  const linear = (x: Value, l: { weight: Operand; bias: Operand }) => add(matmul(x, l.weight as never), l.bias);
  const adapt = (x: Value, b?: Bottleneck) => b ? add(x, matmul(geluTanh(matmul(x, b.down)), b.up)) : x;
  const t = asValue(ids).shape[1];
  let x = add(gather(p.wte.weight, ids), gather(p.wpe.weight, iota([1, t], 1)));
  p.h.forEach(({ ln_1, attn, ln_2, mlp }, i) => {
    const qkv = linear(layerNorm(x, ln_1.weight, ln_1.bias, 1e-5), attn.c_attn);
    const [q, k, v] = split(qkv, -1, 3).map((part) => reshape(part, [1, t, heads, width / heads]));
    const seen = reshape(attention(q, k, v, { causal: true }), [1, t, width]);
    const mixed = add(x, adapt(linear(seen, attn.c_proj), layers?.[i][0]));
    const inner = geluTanh(linear(layerNorm(mixed, ln_2.weight, ln_2.bias, 1e-5), mlp.c_fc));
    x = add(mixed, adapt(linear(inner, mlp.c_proj), layers?.[i][1]));
  });
  return layerNorm(x, p.ln_f.weight, p.ln_f.bias, 1e-5);
}

const random = (shape: readonly number[]) =>
  upload(device, {
    shape,
    dtype: "f32",
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 1.7) / 30),
  });
const bottlenecks = params.h.map(() => [0, 1].map(() => ({ down: random([width, 64]), up: random([64, width]) })));

/** The same function with adapters beside some linears; B is drawn as A is, so that nothing is zero. */
function adapted(targets: readonly string[]) {
  const tuned = lora(
    { ...model, apply: (p: never, inputs: { inputIds: Operand }) => trunk(p, inputs.inputIds) } as never,
    { r: 8, alpha: 16, targets: targets as never },
  );
  const trainable = mapTree(tuned.trainable, (leaf) => random((leaf as Tensor).shape)) as typeof tuned.trainable;
  return { tuned, trainable };
}
const attentionOnly = adapted(["c_attn"]), all = adapted(["c_attn", "c_proj", "c_fc"]);
const merged = jit((t: Trainable, p: Gpt2Params) => all.tuned.merge(t, p) as Gpt2Params)(all.trainable, params);

const base = jit((p: Gpt2Params, ids: Operand) => trunk(p, ids));
const unmerged = ({ tuned, trainable }: typeof all) => {
  const f = jit((t: Trainable, p: Gpt2Params, inputIds: Operand) => tuned.apply(t, p, { inputIds } as never));
  return () => f(trainable, params, ids);
};
const withLayers = jit((p: Gpt2Params, ids: Operand, layers: readonly (readonly Bottleneck[])[]) =>
  trunk(p, ids, layers)
);
const lastLogits = jit((p: Gpt2Params, x: Operand) =>
  matmul(slice(x, 1, tokens - 1, tokens), convert(p.wte.weight, "f32"), { transposeB: true })
);

const release = (x: unknown) => flatten<Tensor>(x, (t) => t instanceof Tensor).leaves.forEach((t) => t.dispose());
const withHead = (f: () => Tensor) => () => {
  const x = f();
  release(lastLogits(params, x));
  return x;
};
const contenders = ([
  ["base", () => base(params, ids)],
  ["merged", () => base(merged, ids)],
  ["LoRA on c_attn", unmerged(attentionOnly)],
  ["LoRA on all four", unmerged(all)],
  ["bottleneck layers", () => withLayers(params, ids, bottlenecks)],
] as [string, () => Tensor][]).map(([name, f]): [string, () => Tensor] => [name, flags.head ? withHead(f) : f]);
const runs = contenders.map(([, f]) => () => release(f()));
for (const f of runs) await warmUp(f);
const { ms, ratios } = await besideFirst(runs.map((f) => sampleOf(f)), Number(flags.rounds));
const widths = [20, 10, 10, 16];
console.log(row(["", "ms", "x base", "quartiles"], widths));
contenders.forEach(([name], i) => {
  const [low, middle, high] = quartiles(ratios[i]).map((x) => x.toFixed(3));
  console.log(row([name, ms[i].toFixed(1), ...(i === 0 ? [] : [middle, `${low} ${high}`])], widths));
});
