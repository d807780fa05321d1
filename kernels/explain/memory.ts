/** What an explanation says of memory: what is held where most is held, and what is made again so as not to be. */
import { formatAval, sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { MemoryUse } from "../runtime/compile.ts";

/** Values that are made alike share a line; the largest come first. */
export function printMemory({ step, held, again }: MemoryUse): string {
  const kept = lines(held.map((value) => ({ value, ns: 0 })));
  return [
    `held at step ${step}, which holds most:${kept.length === 0 ? " nothing" : ""}`,
    ...kept.map(({ text }) => `  ${text}`),
    `made again rather than held:${again.length === 0 ? " nothing" : ""}`,
    ...lines(again).map(({ text, ns }) => `  ${text}, ${(ns / 1e6).toPrecision(2)} ms of a thread`),
  ].join("\n");
}

function lines(values: readonly { readonly value: Value; readonly ns: number }[]) {
  const alike = Object.groupBy(values, ({ value }) => `${formatAval(value.aval)} ${value.node.prim.name}`);
  return Object.entries(alike).map(([name, all = []]) => {
    const bytes = all.reduce((sum, { value: { dtype, shape } }) => sum + storageBytes(dtype, sizeOf(shape)), 0);
    const ns = all.reduce((sum, { ns }) => sum + ns, 0);
    return { bytes, ns, text: `${all.length} x ${name}: ${bytes.toLocaleString("en")} bytes` };
  }).sort((a, b) => b.bytes - a.bytes);
}
