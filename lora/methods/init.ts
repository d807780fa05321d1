import { newInput } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { asValue } from "../../core/ops/constant.ts";
import { gather } from "../../core/ops/indexing.ts";
import { normalAt, randomKey, threefry2x32, uniformAt } from "../../core/random.ts";
import { type HostTensor, Tensor, upload } from "../../core/tensor.ts";
import { type Plan, tokenIds } from "../follow/edit.ts";
import { normsOf, outputsOf, widened } from "../follow/effect.ts";
import type { LoraOptions, Trainable } from "../options.ts";

/** How the first values are drawn: from what, and for which adapter of a model, so that each draws other numbers. */
interface Draw {
  readonly init: NonNullable<LoraOptions["init"]>;
  readonly seed: number;
  readonly index: number;
}

/** What fills a matrix at a place, or null for zeros. */
type Fill = ((key: readonly [number, number], i: number) => number) | null;

/**
 * The first A [r, in] and B [out, r] of a module, f32. They live where `weight` lives; for a placeholder they are
 * placeholders. For what `init` means see {@link LoraOptions}; an embedding has A zero and B standard normal.
 */
function initialPair(
  weight: Leaf,
  sizes: { readonly r: number; readonly in: number; readonly out: number },
  kind: "linear" | "embedding",
  { init, seed, index }: Draw,
): { A: Leaf; B: Leaf } {
  const shapes = { A: [sizes.r, sizes.in], B: [sizes.out, sizes.r] };
  if (!(weight instanceof Tensor)) {
    const placeholder = (shape: readonly number[]) => newInput({ shape, dtype: "f32" });
    return { A: placeholder(shapes.A), B: placeholder(shapes.B) };
  }
  const [high, low] = randomKey(seed).data;
  const uniform = (size: number): Fill => (key, i) => (2 * uniformAt(key, i) - 1) / Math.sqrt(size);
  const fills: Record<typeof kind, Record<`${typeof init}`, readonly [Fill, Fill]>> = {
    linear: {
      true: [uniform(sizes.in), null],
      gaussian: [(key, i) => normalAt(key, i) / sizes.r, null],
      false: [uniform(sizes.in), uniform(sizes.r)],
    },
    embedding: { true: [null, normalAt], gaussian: [null, normalAt], false: [normalAt, normalAt] },
  };
  const make = (shape: readonly number[], fill: Fill, which: number): Tensor => {
    const data = new Float32Array(shape[0] * shape[1]);
    const key = threefry2x32([high, low], [index, which]);
    if (fill !== null) { for (let i = 0; i < data.length; i++) data[i] = fill(key, i); }
    const host: HostTensor = { shape, dtype: "f32", data };
    return upload(weight.home, host);
  };
  const [a, b] = fills[kind][`${init}`];
  // One of the two is drawn under the same key whichever it is; where both are, they differ.
  return { A: make(shapes.A, a, 1), B: make(shapes.B, b, a === null ? 1 : 2) };
}

/** The adapter that changes nothing. What starts as something of the base is a value made of the base's tensors. */
export function firstValues(
  { leaves, paths }: { readonly leaves: readonly Leaf[]; readonly paths: readonly string[] },
  { adapted, edits }: Plan,
  init: NonNullable<LoraOptions["init"]>,
  seed: number,
): Trainable {
  const entries: Record<string, Record<string, Leaf>> = {};
  adapted.forEach((m, index) => {
    const weight = leaves[m.leaf];
    const { start, end } = outputsOf(m);
    const sizes = { r: m.match.r, in: m.match.shape[m.inAxis], out: end - start };
    const entry: { A: Leaf; B: Leaf; magnitude?: Leaf; biasB?: Leaf } = initialPair(weight, sizes, m.kind, {
      init,
      seed,
      index,
    });
    if (m.parts.includes("magnitude")) {
      entry.magnitude = weight instanceof Tensor ? normsOf(m, entry, asValue(weight)) : vector(sizes.out);
    }
    if (m.parts.includes("biasB")) {
      entry.biasB = weight instanceof Tensor ? zeros(weight, sizes.out) : vector(sizes.out);
    }
    entries[m.path] = { ...entry };
  });
  for (const { path, part, from, shape, tokens } of edits) {
    const leaf = leaves[paths.indexOf(from)];
    const first = () => widened(part === "tokens" ? gather(leaf, tokenIds(tokens!)) : asValue(leaf));
    const value = leaf instanceof Tensor ? first() : newInput({ shape, dtype: "f32" });
    entries[path] = { ...entries[path], [part]: value };
  }
  return entries;
}

const vector = (size: number): Leaf => newInput({ shape: [size], dtype: "f32" });

const zeros = ({ home }: Tensor, size: number): Leaf =>
  upload(home, { shape: [size], dtype: "f32", data: new Float32Array(size) });
