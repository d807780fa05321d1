/** Adapters in use: how one or several of them enter a model's graph. */
import { OptionError } from "../../core/errors.ts";
import type { Graph, Rewrite, Value } from "../../core/ir/graph.ts";
import type { Leaf, Model, TokenInputs } from "../../core/model.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { foldIn, randomBits } from "../../core/ops/random.ts";
import { slice } from "../../core/ops/structure.ts";
import type { Operand } from "../../core/tensor.ts";
import { leafValues, trace } from "../../core/trace.ts";
import { asValue } from "../../core/ops/constant.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { side } from "./analyse.ts";
import type { Acts, Adapted, Edit, WeightSite } from "../methods/method.ts";
import type { AdapterEntry } from "../options.ts";
import { type Active, editTree, leafOf } from "./edit.ts";
import { followedForm } from "./forms.ts";
import {
  behind,
  besideFront,
  cacheOf,
  checkContext,
  embedded,
  type Entered,
  extended,
  type FrontCache,
  seeing,
} from "./front.ts";
import { type Followed, rewriteGraph, type WalkOptions } from "./rewrite.ts";
import { branched, sublayersOf } from "./sublayers.ts";

/** Drops some of a branch's inputs: which of the keys u32[n, 2] is this module's. */
interface Drop {
  readonly keys: Value;
  readonly index: number;
  readonly rate: number;
}

/** A function of a model's: its own, or its step. */
interface Run<P, I, O> {
  apply(params: P, inputs: I): O;
  positions?(inputs: I): Value;
}

/** How it is called. */
export interface ApplyOptions {
  /** What drops inputs. */
  readonly key?: Operand;
  /** What stands in front, where that was computed before. */
  readonly front?: FrontCache;
  /** Whether the outputs of tokens in front are given with the others, where they have any. */
  readonly whole?: boolean;
}

/** A model's function with adapters. Each adds to what the base alone gives, in whatever order they stand. */
export function applyActive<P, I, O>(
  model: Model<P, any, any>,
  actives: readonly Active[],
  { frozen, inputs, run = model, key, front, whole }: ApplyOptions & {
    readonly frozen: P;
    readonly inputs: I;
    /** By default the model's own function. */
    readonly run?: Run<P, I, O>;
  },
): O {
  const entered = enter(frozen, actives, { key, inputs }), { edited, leaves, weights } = entered;
  const rewritten = (inputs: I, ruleOf?: (ids: Value) => Rewrite) => {
    const traced = trace((p: P, x: I) => run.apply(p, x), [edited, inputs]);
    const values = [...leaves, ...leafValues([inputs])];
    const at = flatten<Leaf>([edited, inputs]).paths.indexOf("1.inputIds");
    const rule = ruleOf?.(values[at]), after = branchesOf(traced.graph, edited, actives);
    return traced.unflatten(rewriteGraph(traced.graph, values, weights, { rule, after })) as O;
  };
  const active = fronted(actives);
  if (active === null) return rewritten(inputs);

  const { site, entry } = active, { count, attentions } = site.front!;
  checkContext(model, inputs as object, count);
  const given = site.method.front!(site, entry);
  const embeddings = "embeddings" in given ? given.embeddings : null;
  if (embeddings !== null && attentions.some(({ causal }) => !causal)) {
    const all = extended(inputs as TokenInputs, model, count);
    const outputs = rewritten(all as I, (ids) => embedded(embeddings, ids));
    return whole ? outputs : withoutFront(outputs, all, count);
  }
  const stream = embeddings === null || (front && !whole) ? null : cacheOf(model, entered, embeddings);
  const cache = front ?? stream?.cache ?? (given as { readonly cache: FrontCache }).cache;
  const inDocuments = (inputs as TokenInputs).documentStart !== undefined;
  if (inDocuments && attentions.some(({ windowed }) => windowed)) {
    throw new OptionError(
      `${site.method.name} can't be used for rows of several texts where the model's attention has windows: leave pack out`,
    );
  }
  const outputs = rewritten(behind(inputs, { positions: run.positions! }, count), () => seeing(cache, inDocuments));
  return whole && stream !== null ? besideFront(outputs, stream.outputs) : outputs;
}

/** What an adapter puts in front, computed once: keys and values; null where there is nothing, or it depends on what follows. */
export function frontCache<P>(model: Model<P, any, any>, active: Active, frozen: P): FrontCache | null {
  const found = fronted([active]);
  if (found === null) return null;
  const { site, entry } = found, given = site.method.front!(site, entry);
  if ("cache" in given) return given.cache;
  if (site.front!.attentions.some(({ causal }) => !causal)) return null;
  return cacheOf(model, enter(frozen, [active]), given.embeddings).cache;
}

/** What stands after sublayers of a traced graph, whose first inputs are the parameters; undefined where nothing does. */
function branchesOf<P>(graph: Graph, edited: P, actives: readonly Active[]): WalkOptions["after"] {
  const { paths } = flatten<Leaf>(edited);
  const sites = actives.flatMap(({ plan: { adapted }, trainable }) =>
    adapted.filter(({ method }) => method.branch).map((site) => ({
      leaf: leafOf(paths, site),
      branch: site.method.branch!(site, trainable[site.path]),
    }))
  );
  if (sites.length === 0) return undefined;
  const places = new Map(sublayersOf(graph, paths.length).map((one) => [one.leaf, one]));
  return new Map(sites.map(({ leaf, branch }) => branched(places.get(leaf)!, branch)));
}

/** The one site whose method puts tokens in front, with its values. */
function fronted(actives: readonly Active[]): { readonly site: Adapted; readonly entry: AdapterEntry } | null {
  const found = actives.flatMap(({ plan: { adapted }, trainable, adapterWeight }) =>
    adapted.filter(({ front }) => front !== undefined).map((site) => ({
      ...{ site, adapterWeight },
      entry: trainable[site.path],
    }))
  );
  if (found.length === 0) return null;
  const [{ site, entry, adapterWeight }] = found;
  if (found.length > 1) {
    throw new OptionError("two adapters both put tokens in front of the model's own, in the same places: use one");
  }
  if (adapterWeight !== undefined) {
    throw new OptionError(`the tokens that ${site.method.name} puts in front are there or not: give it no weight`);
  }
  return { site, entry };
}

/** Outputs of the model's own places alone. */
function withoutFront<O>(outputs: O, { inputIds }: TokenInputs, count: number): O {
  const [, length] = asValue(inputIds).shape;
  return mapTree<Value, Value>(
    outputs,
    (y) => y.shape.length > 2 && y.shape[1] === length ? slice(y, 1, count, length) : y,
  ) as O;
}

/** The parameters that are traced with, and how the adapters' sites enter the graph by their places among the leaves. */
function enter<P>(
  frozen: P,
  actives: readonly Active[],
  { key, inputs }: { readonly key?: Operand; readonly inputs?: unknown } = {},
): Entered<P> {
  const edited = editTree(frozen, actives, "f32");
  const { paths } = flatten<Leaf>(edited), leaves = leafValues([edited]);
  const weights = new Map<number, Followed[]>();
  const places = new Map<Acts, Value>();
  const placesOf = (acts: Acts) => places.get(acts) ?? places.set(acts, acts.at(inputs)).get(acts)!;
  actives.forEach(({ plan: { adapted, edits, dropout }, trainable, adapterWeight }, which) => {
    const followAt = (site: WeightSite, drop?: Drop) => {
      if (site.method.effect === undefined) return;
      const at = leafOf(paths, site);
      const { acts } = site as Adapted;
      const place = acts && placesOf(acts);
      const followed = follow(site, {
        entry: trainable[site.path],
        weight: leaves[at],
        adapterWeight,
        drop,
        acts: place,
      });
      weights.set(at, [...weights.get(at) ?? [], followed]);
    };
    for (const site of edits) followAt(site as Edit & WeightSite);
    const own = key === undefined || dropout === 0 ? null : actives.length === 1 ? key : foldIn(key, which);
    // One draw gives every module its key.
    const keys = own && randomBits(own, [adapted.length, 2]);
    adapted.forEach((site, index) =>
      followAt(site, keys && site.kind === "linear" ? { keys, index, rate: dropout } : undefined)
    );
  });
  return { edited, leaves, weights };
}

/** How one site enters the graph. */
function follow(
  site: WeightSite,
  { entry, weight, adapterWeight, drop, acts }: {
    readonly entry: AdapterEntry;
    readonly weight: Value;
    readonly adapterWeight?: Operand;
    readonly drop?: Drop;
    readonly acts?: Value;
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
      if (acts !== undefined && kind === "norm") refuse(path, leafPath, "another adapter's norm, which has no places");
      const always = { scaling, ...(acts && { acts }) };
      if (drop === undefined || kind === "norm") return always;
      if (inside) {
        throw new OptionError(
          `dropout on "${path}" is not known inside a sum over chunks, where each chunk would drop the same places: ` +
            `leave it out of the targets or set dropout to 0`,
        );
      }
      const key = reshape(slice(drop.keys, 0, drop.index, drop.index + 1), [2]);
      return { ...always, drop: { key: uses++ === 0 ? key : foldIn(key, uses), rate: drop.rate } };
    },
    refuse: (primitive) => refuse(path, leafPath, primitive),
  };
}

function refuse(path: string, leafPath: string, into: string): never {
  throw new OptionError(
    `"${path}" can't be adapted with these inputs: ${leafPath} goes into ${into}, where the low-rank form is not known`,
  );
}
