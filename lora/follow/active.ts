/** Adapters in use: how one or several of them enter a model's graph. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { eq, sub } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { foldIn, randomBits } from "../../core/ops/random.ts";
import { iota, slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { leafValues, trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import { side } from "./analyse.ts";
import { type Active, biasDelta, editTree, leafOf, tokenIds } from "./edit.ts";
import { effectOf, widened } from "./effect.ts";
import type { AdapterEntry } from "../options.ts";
import type { Adapted } from "./plan.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";
import type { Edit } from "../saved.ts";

/** Drops some of a branch's inputs: which of the keys u32[n, 2] is this module's. */
interface Drop {
  readonly keys: Value;
  readonly index: number;
  readonly rate: number;
}

/** The model's function with adapters. Each adds to what the base alone gives, in whatever order they stand. */
export function applyActive<P, I, O>(
  model: Model<P, I, O>,
  actives: readonly Active[],
  frozen: P,
  inputs: I,
  key?: Operand,
): O {
  const edited = editTree(frozen, actives, "f32");
  const traced = trace((p: P, x: I) => model.apply(p, x), [edited, inputs]);
  const values = leafValues([edited, inputs]);
  const { paths } = flatten<Leaf>(edited);
  const weights = new Map<number, Followed[]>();
  const push = (at: number, followed: Followed) => weights.set(at, [...weights.get(at) ?? [], followed]);
  actives.forEach(({ plan: { adapted, edits, dropout }, trainable, adapterWeight }, which) => {
    for (const edit of edits.filter((e) => e.part === "tokens")) {
      const at = paths.indexOf(edit.into);
      push(at, followTokens(edit, trainable[edit.path], values[at]));
    }
    const own = key === undefined || dropout === 0 ? null : actives.length === 1 ? key : foldIn(key, which);
    // One draw gives every module its key.
    const keys = own && randomBits(own, [adapted.length, 2]);
    adapted.forEach((m, index) => {
      const at = leafOf(paths, m);
      const drop = keys && m.kind === "linear" ? { keys, index, rate: dropout } : null;
      push(at, follow(m, trainable[m.path], values[at], drop, adapterWeight));
    });
  });
  return traced.unflatten(rewriteGraph(traced.graph, values, weights)) as O;
}

/** How one adapter enters the graph. */
function follow(m: Adapted, entry: AdapterEntry, weight: Value, drop: Drop | null, adapterWeight?: Operand): Followed {
  const { A, B, scaling, gain } = effectOf(m, entry, weight, adapterWeight);
  const outAxis = 1 - m.inAxis;
  const [a, b] = [side(A, "first", m.inAxis), side(B, "last", outAxis)];
  const vector = (value: Value) => side(reshape(value, [1, ...value.shape]), "first", outAxis);
  let uses = 0;
  return {
    factors: {
      pair: m.inAxis === 0 ? [a, b] : [b, a],
      ...(gain && { gain: vector(gain) }),
      // Where the module has a bias, that one is changed.
      ...(entry.biasB !== undefined && m.bias === null && { bias: vector(biasDelta(m, entry.biasB, adapterWeight)) }),
    },
    use: (kind, inside) => {
      if (m.only !== null && kind === "norm") {
        refuse(m.path, m.leafPath, "another adapter's norm, which has no one use");
      }
      if (m.only !== null && kind !== m.only) return null;
      if (drop === null || kind === "norm") return { scaling };
      if (inside) {
        throw new OptionError(
          `dropout on "${m.path}" is not known inside a sum over chunks, where each chunk would drop the same places: ` +
            `leave it out of the targets or set dropout to 0`,
        );
      }
      const key = reshape(slice(drop.keys, 0, drop.index, drop.index + 1), [2]);
      return { scaling, drop: { key: uses++ === 0 ? key : foldIn(key, uses), rate: drop.rate } };
    },
    refuse: (primitive) => refuse(m.path, m.leafPath, primitive),
  };
}

/** Rows that are replaced, as a change of low rank: a column of ones and zeros for each, times new less old. */
function followTokens(edit: Edit, entry: AdapterEntry, weight: Value): Followed {
  const ids = tokenIds(edit.tokens!);
  const chosen = eq(iota([weight.shape[0], edit.tokens!.length], 0), ids);
  const difference = sub(asValue(entry.tokens!), widened(gather(weight, ids)));
  return {
    factors: { pair: [side(widened(chosen), "last", 0), side(difference, "first", 1)] },
    use: () => ({ scaling: 1 }),
    refuse: (primitive) => refuse(edit.path, edit.from, primitive),
  };
}

function refuse(path: string, leafPath: string, into: string): never {
  throw new OptionError(
    `"${path}" can't be adapted with these inputs: ${leafPath} goes into ${into}, where the low-rank form is not known`,
  );
}
