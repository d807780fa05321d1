/**
 * Rematerialisation: values that are live at peak memory, although they are cheap to compute from other live values
 * (elementwise work, norms and the like, never a product), are computed a second time just before their later uses.
 */
import type { ScalarOp } from "../../core/ops/elementwise.ts";
import { sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import { bind, type Graph, newInput, type Node, nodesOf, rebuild, type Value } from "../../core/ir/graph.ts";
import type { Costs } from "./costs.ts";
import type { Lowered } from "../lower/lower.ts";
import { type Buffer, isBuffer, isWhole } from "../lower/repr.ts";

/** A value, and what computing it a second time costs: nanoseconds of one thread. */
export interface Rematerialised {
  readonly value: Value;
  readonly ns: number;
}

/** A graph in which values are rematerialised. */
export interface Rematerialisation {
  readonly graph: Graph;
  readonly rematerialised: readonly Rematerialised[];
  /** The values and their copies. They stay in memory of their own, so that sums over them keep their order. */
  readonly whole: ReadonlySet<Value>;
}

/** A value that has memory of its own, and the launches that write it first and read it last. */
interface Stored {
  readonly value: Value;
  readonly born: number;
  readonly last: number;
}

/** The values that have memory of their own, in the order in which they were made. */
function storedBy({ launches, outputs, reprs }: Lowered): Stored[] {
  const born = new Map<Buffer, number>(), last = new Map<Buffer, number>();
  launches.forEach(({ buffers }, i) => {
    for (const b of buffers) {
      if (!born.has(b)) born.set(b, i);
      last.set(b, i);
    }
  });
  // The first value that is a whole buffer is the one that it was made for; the others are views of it.
  const made = new Map<Buffer, Value>();
  for (const [value, repr] of [...reprs].sort(([a], [b]) => a.node.serial - b.node.serial)) {
    const { base } = repr;
    if (!isBuffer(base) || base.argument !== undefined || outputs.includes(base) || made.has(base)) continue;
    if (born.has(base) && isWhole(repr, value.aval)) made.set(base, value);
  }
  return [...made].map(([b, value]) => ({ value, born: born.get(b)!, last: last.get(b)! }));
}

const liveIn = (stored: readonly Stored[], launch: number) =>
  stored.filter(({ born, last }) => born <= launch && last > launch).map(({ value }) => value);

/** The values in memory at a launch that a later launch reads, in the order in which they were made. */
export const liveAt = (lowered: Lowered, launch: number): Value[] => liveIn(storedBy(lowered), launch);

/** The fraction of the arena below which savings are not worth another lowering. */
const worthLowering = 1 / 100;

/**
 * The graph with those values rematerialised that are live at launch `peak` and cheap: computing one takes at most `trips`
 * times as long as writing it to memory and reading it back. Null if there are none, or too few to matter.
 */
export function rematerialise(
  graph: Graph,
  lowered: Lowered,
  { launch, arenaBytes }: { readonly launch: number; readonly arenaBytes: number },
  { costs, trips, whole }: { readonly costs: Costs; readonly trips: number; readonly whole: ReadonlySet<Value> },
): Rematerialisation | null {
  const stored = storedBy(lowered);
  const live = new Set(liveIn(stored, launch));
  const chosen = new Map<Value, Rematerialised>();
  for (const value of live) {
    const ns = costOf(value, live, chosen, costs);
    const bytes = bytesOf(value);
    if (ns !== null && ns <= trips * bytes * (costs.read + costs.write)) chosen.set(value, { value, ns });
  }
  const saved = [...chosen.keys()].reduce((sum, v) => sum + bytesOf(v), 0);
  if (saved === 0 || saved < worthLowering * arenaBytes) return null;
  const now = Math.max(...stored.filter(({ born }) => born <= launch).map(({ value }) => value.node.serial));
  const memory = new Set(stored.map(({ value }) => value.node));
  return readingCopies(graph, now, { live, memory, whole }, chosen);
}

const bytesOf = (v: Value) => storageBytes(v.dtype, sizeOf(v.shape));

/** Nothing to compute: inputs, constants. */
const given = ({ prim }: Node) => ["leaf", "constant", "iota"].includes(prim.lowering.kind);
/** The same values through another window. */
const seen = ({ prim }: Node) => prim.lowering.kind === "view" || prim.lowering.kind === "alias";

/**
 * Nanoseconds for computing a value again from live values, or null if that takes more than elementwise work, or sums over
 * something that is not in memory as it was: only sums over memory keep their order.
 */
function costOf(
  value: Value,
  live: ReadonlySet<Value>,
  chosen: ReadonlyMap<Value, unknown>,
  costs: Costs,
): number | null {
  let ns = costs.launch + bytesOf(value) * costs.write;
  const counted = new Set<Node>();
  const pending = [{ node: value.node, summed: false }];
  while (pending.length > 0) {
    const { node, summed } = pending.pop()!;
    if (summed && !seen(node)) return null;
    if (counted.has(node)) continue;
    counted.add(node);
    const own = seen(node) ? 0 : workOf(node, costs);
    if (own === null) return null;
    ns += own;
    const sums = summed || node.prim.lowering.kind === "row";
    for (const v of node.inputs) {
      const read = v.node.prim.lowering.kind === "leaf" || (live.has(v) && !(sums && chosen.has(v)));
      if (read) ns += Math.min(bytesOf(v), bytesOf(node.outs[0])) * costs.read;
      else if (!given(v.node)) pending.push({ node: v.node, summed: sums });
    }
  }
  return ns;
}

/** Nanoseconds of a node's own work; null if it is not work of this kind. */
function workOf(node: Node, costs: Costs): number | null {
  const { lowering } = node.prim;
  const [out] = node.outs;
  switch (lowering.kind) {
    case "scalar":
      return sizeOf(out.shape) * costs.operations[lowering.op as ScalarOp];
    case "random":
      return sizeOf(out.shape) * costs.random;
    case "gather":
      return bytesOf(out) * costs.read;
    case "row": {
      const inputs = node.inputs.map((v) => newInput(v.aval));
      return nodesOf(node.prim.define!(inputs, node.params)).reduce((ns, { prim: { lowering }, inputs: [x], outs }) => {
        if (lowering.kind === "scalar") return ns + sizeOf(outs[0].shape) * costs.operations[lowering.op as ScalarOp];
        return lowering.kind === "reduce" ? ns + sizeOf(x.shape) * costs.operations.add : ns;
      }, 0);
    }
    default:
      return null;
  }
}

/** The graph in which nodes later than `now` read copies of the values in `chosen`, made before the first of them. */
function readingCopies(
  graph: Graph,
  now: number,
  before: { readonly live: ReadonlySet<Value>; readonly memory: ReadonlySet<Node>; readonly whole: ReadonlySet<Value> },
  chosen: ReadonlyMap<Value, Rematerialised>,
): Rematerialisation {
  const env = new Map<Value, Value>(), copies = new Map<Node, readonly Value[]>(), whole = new Set<Value>();
  const isChosen = (node: Node) => node.outs.some((v) => chosen.has(v));
  const stays = (node: Node) => given(node) || (!isChosen(node) && node.outs.some((v) => before.live.has(v)));
  const apply = (node: Node, inputs: readonly Value[]) => {
    const outs = node.prim.lowering.kind === "leaf" ? node.outs : bind(node.prim, inputs, node.params);
    node.outs.forEach((v, i) => (chosen.has(v) || before.whole.has(v)) && whole.add(outs[i]));
    return outs;
  };
  // What later nodes are to read copies of: the values in `chosen`, and what is read of them without memory of its own.
  const concerned = new Set<Node>();
  const passes = (node: Node) =>
    (seen(node) || node.prim.lowering.kind === "scalar") && !before.memory.has(node) &&
    node.inputs.some((v) => concerned.has(v.node));
  const copyOf = (v: Value): Value => {
    for (const node of nodesOf([v], (n) => stays(n) || copies.has(n))) {
      const inputs = node.inputs.map((x) => copies.get(x.node)?.[x.index] ?? env.get(x) ?? x);
      copies.set(node, apply(node, inputs));
    }
    return copies.get(v.node)![v.index];
  };
  const outputs = rebuild(graph, graph.inputs, (node, inputs) => {
    const late = node.serial > now;
    if (!late && (isChosen(node) || passes(node))) concerned.add(node);
    const outs = apply(node, late ? node.inputs.map((v, i) => concerned.has(v.node) ? copyOf(v) : inputs[i]) : inputs);
    node.outs.forEach((v, i) => env.set(v, outs[i]));
    return outs;
  }, { all: true });
  const used = [...chosen.values()].filter(({ value }) => copies.has(value.node));
  return { graph: { inputs: graph.inputs, outputs }, rematerialised: used, whole };
}
