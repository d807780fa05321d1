/** Adapters in use: how one or several of them enter a model's graph. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { foldIn, randomBits } from "../../core/ops/random.ts";
import { slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { leafValues, trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import { side } from "./analyse.ts";
import type { Edit, WeightSite } from "../methods/method.ts";
import type { AdapterEntry } from "../options.ts";
import { type Active, editTree, leafOf } from "./edit.ts";
import { followedForm } from "./forms.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";

/** Drops some of a branch's inputs: which of the keys u32[n, 2] is this module's. */
interface Drop {
  readonly keys: Value;
  readonly index: number;
  readonly rate: number;
}

/** A model's function with adapters. Each adds to what the base alone gives, in whatever order they stand. */
export function applyActive<P, I, O>(
  apply: Model<P, I, O>["apply"],
  actives: readonly Active[],
  frozen: P,
  inputs: I,
  key?: Operand,
): O {
  const edited = editTree(frozen, actives, "f32");
  const traced = trace((p: P, x: I) => apply(p, x), [edited, inputs]);
  const values = leafValues([edited, inputs]);
  const { paths } = flatten<Leaf>(edited);
  const weights = new Map<number, Followed[]>();
  actives.forEach(({ plan: { adapted, edits, dropout }, trainable, adapterWeight }, which) => {
    const enter = (site: WeightSite, drop?: Drop) => {
      if (site.method.effect === undefined) return;
      const at = leafOf(paths, site);
      const followed = follow(site, { entry: trainable[site.path], weight: values[at], adapterWeight, drop });
      weights.set(at, [...weights.get(at) ?? [], followed]);
    };
    for (const site of edits) enter(site as Edit & WeightSite);
    const own = key === undefined || dropout === 0 ? null : actives.length === 1 ? key : foldIn(key, which);
    // One draw gives every module its key.
    const keys = own && randomBits(own, [adapted.length, 2]);
    adapted.forEach((site, index) =>
      enter(site, keys && site.kind === "linear" ? { keys, index, rate: dropout } : undefined)
    );
  });
  return traced.unflatten(rewriteGraph(traced.graph, values, weights)) as O;
}

/** How one site enters the graph. */
function follow(
  site: WeightSite,
  { entry, weight, adapterWeight, drop }: {
    readonly entry: AdapterEntry;
    readonly weight: Value;
    readonly adapterWeight?: Operand;
    readonly drop?: Drop;
  },
): Followed {
  const { method, inAxis, only, path, leafPath } = site;
  const { pair, gain, form } = method.effect!(site, entry, weight, { adapterWeight });
  const outAxis = 1 - inAxis;
  const vector = (value: Value, axis: number) => side(reshape(value, [1, ...value.shape]), "first", axis);
  const sides = pair && [side(pair.A, "first", inAxis), side(pair.B, "last", outAxis)];
  // Where the module has a bias, that one is changed.
  const bias = site.bias === null ? method.bias?.(site, entry, { adapterWeight })?.add : undefined;
  let uses = 0;
  return {
    factors: {
      ...(sides && { pair: inAxis === 0 ? [sides[0], sides[1]] : [sides[1], sides[0]] }),
      ...(gain && { gain: vector(gain.value, gain.of === "in" ? inAxis : outAxis) }),
      ...(bias && { bias: vector(bias, outAxis) }),
      ...(form && { form: followedForm(form, weight.shape, inAxis) }),
    },
    use: (kind, inside) => {
      if (only !== null && kind === "norm") refuse(path, leafPath, "another adapter's norm, which has no one use");
      if (only !== null && kind !== only) return null;
      const scaling = pair?.scaling ?? 1;
      if (drop === undefined || kind === "norm") return { scaling };
      if (inside) {
        throw new OptionError(
          `dropout on "${path}" is not known inside a sum over chunks, where each chunk would drop the same places: ` +
            `leave it out of the targets or set dropout to 0`,
        );
      }
      const key = reshape(slice(drop.keys, 0, drop.index, drop.index + 1), [2]);
      return { scaling, drop: { key: uses++ === 0 ? key : foldIn(key, uses), rate: drop.rate } };
    },
    refuse: (primitive) => refuse(path, leafPath, primitive),
  };
}

function refuse(path: string, leafPath: string, into: string): never {
  throw new OptionError(
    `"${path}" can't be adapted with these inputs: ${leafPath} goes into ${into}, where the low-rank form is not known`,
  );
}
