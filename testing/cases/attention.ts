/** Attention, forward and backward. */
import { type AttentionKernel, attentionOperands, type HeadLayout, type Operand } from "../../kernels/ir/kernel.ts";
import type { HostArray } from "../../core/dtype.ts";
import { type KernelCase, makeCase, read, write } from "./build.ts";

/** What decides an attention kernel, but for how its operands lie. */
export type AttentionSizes = Omit<AttentionKernel, "kind" | "operands" | "layouts" | "scale" | "offset"> & {
  /** By default an operand. */
  readonly offset?: number | null;
};

/** An attention kernel over contiguous [batch, token, head, width] operands, or [batch, head, token, width] ones. */
export function attentionKernel(sizes: AttentionSizes, tokensFirst = true): AttentionKernel {
  const { batch, heads, kvHeads, queries, keys, width } = sizes;
  const rows = (tokens: number, heads: number) => ({
    size: batch * tokens * heads * width,
    layout: {
      offset: 0,
      batch: tokens * heads * width,
      token: tokensFirst ? heads * width : width,
      head: tokensFirst ? width : tokens * width,
    },
  });
  const plain = (size: number) => ({ size, layout: null });
  const [query, key, statistic] = [rows(queries, heads), rows(keys, kvHeads), plain(batch * heads * queries)];
  const lies: Record<string, { size: number; layout: HeadLayout | null }> = {
    ...{ q: query, dq: query, out: query, dout: query, k: key, v: key, dk: key, dv: key },
    ...{ lse: statistic, delta: statistic, mask: plain(batch * keys), offset: plain(1), first: plain(batch * queries) },
  };
  const names = attentionOperands({ offset: null, ...sizes });
  const written = { "forward": ["out", "lse"], "backward-q": ["dq"], "backward-kv": ["dk", "dv"] }[sizes.pass];
  return {
    kind: "attention",
    offset: null,
    ...sizes,
    scale: 1 / Math.sqrt(width),
    operands: names.map((name): Operand => {
      const size = lies[name].size + (sizes.starts?.[name] ?? 0);
      if (written.includes(name)) return write(size);
      return read(size, name === "mask" ? "bool" : name === "offset" || name === "first" ? "i32" : "f32");
    }),
    layouts: names.map((name) => lies[name].layout),
  };
}

/**
 * The first key of each query in four kinds of rows: windows of a few keys, documents side by side, no bound, and bounds
 * without any order, some of which let a query see nothing.
 */
export function firstKeys({ batch, queries, keys }: AttentionSizes): Int32Array {
  const kinds = [
    (i: number) => keys - queries + i - 2,
    (i: number) => i - i % 4,
    () => -3,
    (i: number) => (i * 7) % (keys + 2),
  ];
  return Int32Array.from(
    { length: batch * queries },
    (_, at) => kinds[(Math.floor(at / queries) + queries) % 4](at % queries),
  );
}

/** Attention: causal or not, grouped heads, padding, a query that sees nothing, bounds from below. */
export function attentionCases(): KernelCase[] {
  const shapes = [
    { batch: 2, heads: 3, kvHeads: 3, queries: 9, keys: 9, width: 8, causal: true },
    { batch: 1, heads: 4, kvHeads: 2, queries: 20, keys: 20, width: 16, causal: true },
    { batch: 2, heads: 2, kvHeads: 1, queries: 5, keys: 37, width: 12, causal: false },
    { batch: 1, heads: 2, kvHeads: 2, queries: 1, keys: 70, width: 64, causal: true },
    { batch: 1, heads: 1, kvHeads: 1, queries: 3, keys: 5, width: 6, causal: true },
    { batch: 1, heads: 1, kvHeads: 1, queries: 1, keys: 1, width: 1, causal: true },
    { batch: 2, heads: 2, kvHeads: 1, queries: 3, keys: 0, width: 4, causal: false },
    { batch: 2, heads: 2, kvHeads: 1, queries: 0, keys: 3, width: 4, causal: true },
    { batch: 0, heads: 1, kvHeads: 1, queries: 2, keys: 3, width: 4, causal: true },
    { batch: 2, heads: 0, kvHeads: 0, queries: 2, keys: 3, width: 4, causal: true },
  ].map((shape) => ({ ...shape, bounded: false }));
  const bounded = [
    ...shapes,
    // Four rows, one of each kind of bounds, and blocks of keys that no query of a block sees.
    { batch: 4, heads: 2, kvHeads: 1, queries: 70, keys: 83, width: 8, causal: true },
    { batch: 4, heads: 2, kvHeads: 2, queries: 75, keys: 70, width: 4, causal: false },
    // In training the offset is known: a binding less, of which backward-kv has the most.
  ].map((shape) => ({ ...shape, bounded: true, offset: shape.causal ? shape.keys - shape.queries : 0 }));
  // Where few bindings are left, these begin within a buffer that they share.
  const { batch, keys } = shapes[0];
  const shared = { ...shapes[0], starts: { offset: batch * keys } };
  // Scores bent by a bound that some come near to, with blocks that are packed and such as are not.
  const capped = [shapes[0], shapes[1], shapes[2], bounded.at(-2)!].map((shape) => ({ ...shape, cap: 0.7 }));
  return [...shapes, ...bounded, shared, ...capped].flatMap((shape) =>
    (["forward", "backward-q", "backward-kv"] as const).map((pass) => {
      const { batch, keys, queries, heads, kvHeads, width, causal, bounded } = shape;
      // The second example is padded at the left and sees nothing at all in its first rows.
      const mask = Uint32Array.from({ length: batch * keys }, (_, i) => i >= keys && i % keys < 3 ? 0 : 1);
      const start = (shape as Partial<typeof shared>).starts?.offset ?? 0;
      const offset = new Int32Array(start + 1).fill(-9).fill(causal ? keys - queries : 0, start);
      const sizes = { ...shape, pass };
      const name = `attention ${pass} ${batch}x${heads}/${kvHeads}x${queries}x${keys}x${width}` +
        (bounded ? ", bounded" : start > 0 ? ", its offset behind others" : "") + ("cap" in shape ? ", capped" : "");
      const given: Record<number, HostArray> = bounded ? { 3: mask, 4: firstKeys(sizes) } : { 3: mask, 4: offset };
      return makeCase(name, attentionKernel(sizes), 8 * (keys + width), given);
    })
  );
}
