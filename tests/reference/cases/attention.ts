/** Attention, forward and backward. */
import type { AttentionKernel } from "../../../kernels/kernel.ts";
import { type KernelCase, makeCase, read, write } from "./build.ts";

/** Attention over packed q, k, v rows of one [batch, token, 3 x heads x width] projection. */
export function attentionKernel(
  pass: AttentionKernel["pass"],
  { batch, heads, kvHeads, queries, keys, width, causal }: {
    batch: number;
    heads: number;
    kvHeads: number;
    queries: number;
    keys: number;
    width: number;
    causal: boolean;
  },
): AttentionKernel {
  const layout = (tokens: number, h: number) => ({
    offset: 0,
    batch: tokens * h * width,
    token: h * width,
    head: width,
  });
  const [q, kv] = [layout(queries, heads), layout(keys, kvHeads)];
  const sizes = {
    q: batch * queries * heads * width,
    kv: batch * keys * kvHeads * width,
    row: batch * heads * queries,
  };
  const inputs = [read(sizes.q), read(sizes.kv), read(sizes.kv), read(batch * keys, "bool"), read(1, "i32")];
  const backward = [...inputs, read(sizes.q), read(sizes.row), read(sizes.row)];
  const common = { kind: "attention", pass, batch, heads, kvHeads, queries, keys, width, causal } as const;
  const scale = 1 / Math.sqrt(width);
  if (pass === "forward") {
    return {
      ...common,
      scale,
      operands: [...inputs, write(sizes.q), write(sizes.row)],
      layouts: [q, kv, kv, null, null, q, null],
    };
  }
  const layouts = [q, kv, kv, null, null, q, null, null];
  return pass === "backward-q"
    ? { ...common, scale, operands: [...backward, write(sizes.q)], layouts: [...layouts, q] }
    : { ...common, scale, operands: [...backward, write(sizes.kv), write(sizes.kv)], layouts: [...layouts, kv, kv] };
}

/** Attention: causal or not, grouped heads, padding, a query that sees nothing. */
export function attentionCases(): KernelCase[] {
  const shapes = [
    { batch: 2, heads: 3, kvHeads: 3, queries: 9, keys: 9, width: 8, causal: true },
    { batch: 1, heads: 4, kvHeads: 2, queries: 20, keys: 20, width: 16, causal: true },
    { batch: 2, heads: 2, kvHeads: 1, queries: 5, keys: 37, width: 12, causal: false },
    { batch: 1, heads: 2, kvHeads: 2, queries: 1, keys: 70, width: 64, causal: true },
    { batch: 1, heads: 1, kvHeads: 1, queries: 3, keys: 5, width: 6, causal: true },
  ];
  return shapes.flatMap((shape) =>
    (["forward", "backward-q", "backward-kv"] as const).map((pass) => {
      const { batch, keys, queries, heads, kvHeads, width, causal } = shape;
      // The second example is padded at the left and sees nothing at all in its first rows.
      const mask = Uint32Array.from({ length: batch * keys }, (_, i) => i >= keys && i % keys < 3 ? 0 : 1);
      const offset = Int32Array.of(causal ? keys - queries : 0);
      const name = `attention ${pass} ${batch}x${heads}/${kvHeads}x${queries}x${keys}x${width}`;
      return makeCase(name, attentionKernel(pass, shape), 8 * (keys + width), { 3: mask, 4: offset });
    })
  );
}
