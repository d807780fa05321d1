/** What an explanation says about memory: what is live at the peak, and what is rematerialised to lower it. */
import { formatAval, sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import { formatCount } from "../../core/host/format.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { MemoryUse } from "../runtime/compile.ts";

/** Values of one shape and operation share a line; the largest come first. */
export function printMemory({ step, live, rematerialised }: MemoryUse): string {
  const kept = lines(live.map((value) => ({ value, ns: 0 })));
  return [
    `live at step ${step}, the peak of memory:${kept.length === 0 ? " nothing" : ""}`,
    ...kept.map(({ text }) => `  ${text}`),
    `rematerialised:${rematerialised.length === 0 ? " nothing" : ""}`,
    ...lines(rematerialised).map(({ text, ns }) => `  ${text}, ${(ns / 1e6).toPrecision(2)} ms of a thread`),
  ].join("\n");
}

function lines(values: readonly { readonly value: Value; readonly ns: number }[]) {
  const alike = Object.groupBy(values, ({ value }) => `${formatAval(value.aval)} ${value.node.prim.name}`);
  return Object.entries(alike).map(([name, all = []]) => {
    const bytes = all.reduce((sum, { value: { dtype, shape } }) => sum + storageBytes(dtype, sizeOf(shape)), 0);
    const ns = all.reduce((sum, { ns }) => sum + ns, 0);
    return { bytes, ns, text: `${all.length} x ${name}: ${formatCount(bytes)} bytes` };
  }).sort((a, b) => b.bytes - a.bytes);
}
