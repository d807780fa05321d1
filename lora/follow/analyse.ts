import { type Aval, formatAval } from "../../core/aval.ts";
import { isFloat } from "../../core/dtype.ts";
import { newInput, nodesOf } from "../../core/ir/graph.ts";
import type { Leaf, Model, Parts } from "../../core/model.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { Tensor, tensorPrim } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";
import type { Side } from "./named.ts";
import type { UseKind } from "./rules.ts";
import type { NamePair } from "../targets.ts";

/** A named use of a weight, or all its uses: what one adapter can belong to. */
export interface Module extends NamePair {
  /** The weight among the leaves of the parameters. */
  readonly leaf: number;
  /** Its path. */
  readonly leafPath: string;
  /** Its shape and dtype. */
  readonly aval: Aval;
  /** The uses that are meant: all, or those of one kind where the weight is tied. */
  readonly only: UseKind | null;
  /** Whether it is used in products, and not only looked up. */
  readonly linear: boolean;
  /** Whether the model says that its rows are the outputs. */
  readonly isHead: boolean;
  /** What it is to those who adapt it. */
  readonly kind: "linear" | "embedding";
  /** Which axis of the weight the input meets: 0 for a weight stored [in, out], 1 for [out, in]. */
  readonly inAxis: 0 | 1;
  /** The module's bias among the paths of the parameters, if it has one. */
  readonly bias: string | null;
  /** If only some of its outputs are meant: their name, and where they begin and end. */
  readonly part: { readonly of: string; readonly name: string; readonly start: number; readonly end: number } | null;
  /** Whether its rows are looked up by an input of the model as it is: tokens by their ids. */
  readonly byInput: boolean;
  /** Why it can't be adapted, or null. */
  readonly refusal: string | null;
}

/** One weight while it is followed: what was found out about it. */
interface Report {
  readonly uses: { kind: UseKind; inSide: 0 | 1; byInput: boolean }[];
  readonly dead: Set<string>;
}

/** A factor of one axis of a matrix: U [n, r] stands on axis 0, V [r, n] on axis 1. */
export function side(value: Side["value"], r: Side["r"], axis: number): Side {
  return { value, r, axes: [axis] };
}

/** Traces the model once with its sample and finds every module, how it is used, and what can't be adapted. */
export function analyse<P, I>(model: Model<P, I, unknown>): Module[] {
  const params = flatten<Leaf>(model.params);
  const { graph } = trace((p: P, x: I) => model.apply(p, x), [model.params, model.sample]);
  const reports = params.leaves.map((): Report => ({ uses: [], dead: new Set() }));
  const weights = new Map<number, readonly Followed[]>();
  params.leaves.forEach(({ aval }, i) => {
    if (aval.shape.length !== 2 || !isWeight(aval)) return;
    const [rows, columns] = aval.shape;
    const u = newInput({ shape: [rows, 1], dtype: "f32" }), v = newInput({ shape: [1, columns], dtype: "f32" });
    weights.set(i, [{
      factors: { pair: [side(u, "last", 0), side(v, "first", 1)] },
      use: () => ({ scaling: 1 }),
      met: (kind, inSide, { inputs }) =>
        reports[i].uses.push({
          kind,
          inSide,
          byInput: inputs.some((x) => graph.inputs.indexOf(x) >= params.leaves.length),
        }),
      refuse: (primitive) => reports[i].dead.add(primitive),
    }]);
  });
  rewriteGraph(graph, graph.inputs, weights);
  const captured = new Set<Tensor>();
  for (const node of nodesOf(graph.outputs)) if (node.prim === tensorPrim) captured.add(node.params.tensor);

  const aliases = new Map(Object.entries(model.tied ?? {}).map(([alias, module]) => [module, alias]));
  return params.leaves.flatMap((leaf, i): Module[] => {
    const leafPath = params.paths[i];
    if (/(^|\.)bias$/.test(leafPath)) return [];
    const path = leafPath.replace(/\.weight$/, "");
    const alias = aliases.get(path);
    const bias = params.paths.includes(`${path}.bias`) ? `${path}.bias` : null;
    const make = (name: string, only: UseKind | null): Module[] => {
      const uses = reports[i].uses.filter((use) => use.kind !== "norm" && (only === null || use.kind === only));
      const module: Module = {
        path: name,
        hub: model.hubName?.(name) ?? name,
        leaf: i,
        leafPath,
        aval: leaf.aval,
        only,
        linear: uses.some((use) => use.kind === "product"),
        isHead: name === model.head,
        kind: uses[0]?.kind === "lookup" ? "embedding" : "linear",
        inAxis: uses[0]?.inSide ?? 1,
        bias,
        part: null,
        byInput: uses.some((use) => use.byInput),
        refusal: refusalOf(leaf, leafPath, uses.length, reports[i].dead, captured),
      };
      return [module, ...partsOf(module, model.parts ?? {})];
    };
    return alias === undefined ? make(path, null) : [...make(path, "lookup"), ...make(alias, "product")];
  });
}

/** A module's parts as modules of their own: `c_attn[q]`. */
function partsOf(module: Module, parts: Parts): Module[] {
  const names = parts[module.path.split(".").at(-1)!];
  if (names === undefined || module.refusal !== null) return [];
  const size = module.aval.shape[1 - module.inAxis];
  const sizes = isList(names) ? names.map((name) => [name, size / names.length] as const) : Object.entries(names);
  let end = 0;
  return sizes.map(([name, size]) => ({
    ...module,
    path: `${module.path}[${name}]`,
    hub: `${module.hub}[${name}]`,
    part: { of: module.path, name, start: end, end: end += size },
  }));
}

const isList = (names: Parts[string]): names is readonly string[] => Array.isArray(names);

/** Whether a leaf holds numbers, quantised or not. */
const isWeight = ({ dtype }: Aval) => isFloat(dtype) || isPacked(dtype);

function refusalOf(leaf: Leaf, path: string, uses: number, dead: Set<string>, captured: Set<Tensor>): string | null {
  if (leaf.aval.shape.length !== 2) return `${path} is ${formatAval(leaf.aval)}, and LoRA adapts matrices`;
  if (!isWeight(leaf.aval)) return `${path} is ${formatAval(leaf.aval)}, and LoRA adapts weights of floats`;
  if (leaf instanceof Tensor && captured.has(leaf)) {
    return `the model mentions ${path} itself instead of reading it from the params that apply is given`;
  }
  if (dead.size > 0) {
    const names = [...dead].join(" and ");
    return `${path} goes into ${names}, where the low-rank form is not known (a weight may be converted, transposed, ` +
      `sliced, split or reshaped on its way to a product or a lookup)`;
  }
  return uses === 0 ? `${path} is not used by the model in a product or a lookup` : null;
}
