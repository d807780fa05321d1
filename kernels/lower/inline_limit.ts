/** Keeps what is computed inside its one reader from giving that reader more than a kernel may hold. */
import type { Value } from "../../core/ir/graph.ts";
import { maxFused } from "../ir/kernel.ts";
import type { Context } from "./context.ts";

/**
 * Lets go of inlined values wherever a kernel would bind more than `most` buffers, those of most sources first, or compute
 * more than it may, the largest first.
 */
export function limitInlined(ctx: Context, most: number): void {
  const sources = new Map<Value, ReadonlySet<Value>>();
  /** How many operations an inlined value is made of. */
  const sizes = new Map<Value, number>();
  const sizeOf = (v: Value) => ctx.inlined.has(v) ? sizes.get(v)! : 0;
  const sourcesOf = (v: Value): ReadonlySet<Value> =>
    ctx.inlined.has(v) ? sources.get(v)! : new Set(isComputed(ctx, v) ? [] : [v]);
  for (const node of ctx.nodes) {
    const [out] = node.outs;
    const { kind } = node.prim.lowering;
    const inlined = ctx.inlined.has(out);
    if (!inlined && kind !== "reduce" && kind !== "row") continue;
    const inputs = ctx.inputs(node);
    const all = () => new Set(inputs.flatMap((x) => [...sourcesOf(x)]));
    const size = () => inputs.reduce((sum, x) => sum + sizeOf(x), 1);
    const letGo = (of: (v: Value) => number) => {
      const inside = inputs.filter((x) => ctx.inlined.has(x));
      return inside.length > 0 && ctx.inlined.delete(inside.reduce((a, b) => of(b) > of(a) ? b : a));
    };
    while (all().size + node.outs.length > most && letGo((v) => sourcesOf(v).size));
    while (size() > maxFused && letGo(sizeOf));
    if (!inlined) continue;
    sources.set(out, all());
    sizes.set(out, size());
  }
}

/** Whether a value is a constant or a counter, however it is looked at: no buffer. */
function isComputed(ctx: Context, v: Value): boolean {
  while (v.node.prim.lowering.kind === "view") v = ctx.resolve(v.node.inputs[0]);
  return v.node.prim.lowering.kind === "constant" || v.node.prim.lowering.kind === "iota";
}
