import { formatCount } from "../../core/host/format.ts";
import { exactText, Identities } from "../../core/identity.ts";
import { nodesOf } from "../../core/ir/graph.ts";
import { printGraph } from "../../core/ir/print.ts";
import { trace } from "../../core/trace.ts";
import { build, type Built } from "../runtime/compile.ts";
import { bytesOf, describeKernel, flopsOf, printProgram } from "./describe.ts";
import { printMemory } from "./memory.ts";
import { type Launches, printSummary } from "./summary.ts";
import type { Kernel, Program } from "../ir/kernel.ts";
import type { KernelText } from "../device/device.ts";
import { textOf } from "../wgsl/emit.ts";
import { gpuTile, type TileConfig } from "../wgsl/tile.ts";
import type { Arguments } from "../../core/tree_types.ts";
import { checkFunction, checkOptions, type OptionNames } from "../../core/options.ts";

/** What {@link explain} shows. */
export interface ExplainOptions {
  /** How kernels are tiled for a GPU. */
  readonly tile?: TileConfig;
  /** The summary alone: no graph, no plan, no WGSL. */
  readonly brief?: boolean;
}

const explainOptions: OptionNames<ExplainOptions> = { tile: true, brief: true };

/**
 * A function as the compiler sees it, as text: a table of its kernels with their tiles, FLOPs and bytes; what is live at
 * peak memory and what is rematerialised; its graph after the passes; the plan of its dispatches and their memory; and
 * each kernel's WGSL. Nothing runs; arguments only give the avals, and may be values or tensors. {@link profile} gives
 * the same page with times.
 */
export function explain<A extends readonly unknown[]>(
  f: (...args: A) => unknown,
  options: ExplainOptions = {},
): (...args: Arguments<A>) => string {
  checkOptions("explain", options, explainOptions);
  checkFunction("explain", f);
  const { tile = gpuTile, brief } = options;
  return (...args) => printPage(build(trace(f, args).graph), { textOf: (kernel) => textOf(kernel, tile), brief });
}

/** The page of a built program, with the milliseconds of each step where they were measured. */
export function printPage(
  { graph, program, memory }: Pick<Built, "graph" | "program" | "memory">,
  { textOf, brief = false }: { readonly textOf: (kernel: Kernel) => KernelText; readonly brief?: boolean },
  times?: readonly number[],
): string {
  const all = distinct(program, textOf);
  const summary = `${printSummary(all, program, times)}\n\n${printMemory(memory)}`;
  if (brief) return `${summary}\n`;
  const shown = new Map<string, number>();
  const kernels = all.map(({ kernel, at, text }) =>
    [
      `step ${at.join(", ")}: ${describeKernel(kernel)}`,
      `  ${formatCount(flopsOf(kernel))} FLOPs, ${formatCount(bytesOf(kernel))} bytes${
        times ? `, ${spanOf(at, times)}` : ""
      }`,
      `  tile ${text.tiling}`,
      withoutShown(text.parts, at[0], shown).trimEnd(),
      "",
    ].join("\n")
  );
  return [
    summary,
    "",
    `graph: ${nodesOf(graph.outputs).length} nodes`,
    printGraph(graph),
    "",
    `plan: ${printProgram(program)}`,
    "",
    ...kernels,
  ].join("\n").trimEnd() + "\n";
}

/** Every kernel once, with the steps that launch it. */
function distinct(program: Program, textOf: (kernel: Kernel) => KernelText): Launches[] {
  const ids = new Identities();
  const steps = new Map<string, { kernel: Kernel; at: number[] }>();
  program.steps.forEach(({ kernel }, i) => {
    const key = exactText(kernel, ids);
    const known = steps.get(key);
    if (known) known.at.push(i);
    else steps.set(key, { kernel, at: [i] });
  });
  return [...steps.values()].map(({ kernel, at }) => ({ kernel, at, text: textOf(kernel) }));
}

/** The parts of a step's shader as text, but of functions that stand further up only their names and the step. */
function withoutShown(parts: readonly string[], step: number, shown: Map<string, number>): string {
  const lines: string[] = [];
  const above = new Map<number, string[]>();
  const tell = () => {
    for (const [at, names] of above) lines.push(`// as in step ${at}: ${names.join(", ")}\n`);
    above.clear();
  };
  for (const part of parts) {
    const names = [...part.matchAll(/^fn (\w+)/gm)].map(([, name]) => name);
    const at = shown.get(part);
    if (at !== undefined && names.length > 0) above.set(at, [...above.get(at) ?? [], ...names]);
    else {
      tell();
      lines.push(part);
      shown.set(part, step);
    }
  }
  tell();
  return lines.join("");
}

/** The time of one launch of a kernel, or the least and the most of several. */
function spanOf(at: readonly number[], times: readonly number[]): string {
  const own = at.map((i) => times[i]);
  const [least, most] = [Math.min(...own), Math.max(...own)].map((ms) => ms.toFixed(3));
  return `${least === most ? least : `${least} to ${most}`} ms`;
}
