/** Keeps what is computed inside its one reader from giving that reader more buffers than a kernel may bind. */
import type { Value } from "../../core/ir/graph.ts";
import type { Context } from "./context.ts";

/** Lets go of inlined values, those of most sources first, wherever a kernel would bind more than `most` buffers. */
export function limitInlined(ctx: Context, most: number): void {
  const sources = new Map<Value, ReadonlySet<Value>>();
  const sourcesOf = (v: Value): ReadonlySet<Value> =>
    ctx.inlined.has(v) ? sources.get(v)! : new Set(isComputed(ctx, v) ? [] : [v]);
  for (const node of ctx.nodes) {
    const [out] = node.outs;
    const { kind } = node.prim.lowering;
    const inlined = ctx.inlined.has(out);
    if (!inlined && kind !== "reduce" && kind !== "row") continue;
    const inputs = ctx.inputs(node);
    const all = () => new Set(inputs.flatMap((x) => [...sourcesOf(x)]));
    while (all().size + node.outs.length > most) {
      const inside = inputs.filter((x) => ctx.inlined.has(x));
      if (inside.length === 0) break;
      ctx.inlined.delete(inside.reduce((a, b) => sourcesOf(b).size > sourcesOf(a).size ? b : a));
    }
    if (inlined) sources.set(out, all());
  }
}

/** Whether a value is a constant or a counter, however it is looked at: no buffer. */
function isComputed(ctx: Context, v: Value): boolean {
  while (v.node.prim.lowering.kind === "view") v = ctx.resolve(v.node.inputs[0]);
  return v.node.prim.lowering.kind === "constant" || v.node.prim.lowering.kind === "iota";
}
