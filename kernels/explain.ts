import { type Graph, nodesOf } from "../core/ir/graph.ts";
import { printGraph } from "../core/ir/print.ts";
import { trace } from "../core/trace.ts";
import { build } from "./compile.ts";
import { bytesOf, describeKernel, flopsOf, printProgram } from "./describe.ts";
import type { Kernel, Program } from "./kernel.ts";
import { emitWgsl } from "./wgsl/emit.ts";
import { gpuTile, type TileConfig } from "./wgsl/tile.ts";

/** What {@link explain} shows. */
export interface ExplainOptions {
  /** How kernels are cut for a GPU. */
  readonly tile?: TileConfig;
  /** Leave the WGSL out. */
  readonly brief?: boolean;
}

/**
 * A function as the engine sees it, as text: its graph after the passes, the plan of its kernels and their memory, and
 * each kernel once with its FLOPs, bytes, tile and WGSL. Nothing runs; arguments give the avals and may be values or
 * tensors. {@link profile} gives the same page with times.
 */
export function explain(f: (...args: any[]) => unknown, options: ExplainOptions = {}): (...args: unknown[]) => string {
  const { tile = gpuTile, brief } = options;
  return (...args) => printPage(build(trace(f, args).graph), { tileOf: () => tile, brief });
}

/** The page of a built program, with the milliseconds of each step where they were measured. */
export function printPage(
  { graph, program }: { readonly graph: Graph; readonly program: Program },
  { tileOf, brief = false }: { readonly tileOf: (kernel: Kernel) => TileConfig; readonly brief?: boolean },
  times?: readonly number[],
): string {
  const seen = new Set<string>();
  const kernels = distinct(program).map(({ kernel, at }) => {
    const shader = emitWgsl(kernel, tileOf(kernel));
    const head = [
      `step ${at.join(", ")}: ${describeKernel(kernel)}`,
      `  ${count(flopsOf(kernel))} FLOPs, ${count(bytesOf(kernel))} bytes${
        times ? `, ${timeOf(kernel, at, times)}` : ""
      }`,
      `  tile ${tileOf(kernel).name}: ${shader.cut}`,
    ].join("\n");
    return brief ? head : `${head}\n${withoutSeen(shader.parts, seen).trimEnd()}`;
  });
  return [
    `graph: ${nodesOf(graph.outputs).length} nodes`,
    printGraph(graph),
    "",
    `plan: ${printProgram(program)}`,
    "",
    ...kernels.flatMap((kernel) => [kernel, ""]),
  ].join("\n").trimEnd() + "\n";
}

/** Every kernel once, with the steps that launch it. */
function distinct(program: Program): { kernel: Kernel; at: number[] }[] {
  const steps = new Map<string, { kernel: Kernel; at: number[] }>();
  program.steps.forEach(({ kernel }, i) => {
    const key = JSON.stringify(kernel);
    const known = steps.get(key);
    if (known) known.at.push(i);
    else steps.set(key, { kernel, at: [i] });
  });
  return [...steps.values()];
}

/** The parts of a shader as text, but of functions that the page has shown, in a row, only the names. */
function withoutSeen(parts: readonly string[], seen: Set<string>): string {
  const shown: string[] = [];
  let above: string[] = [];
  const tell = () => {
    if (above.length > 0) shown.push(`// as above: ${above.join(", ")}\n`);
    above = [];
  };
  for (const part of parts) {
    const names = [...part.matchAll(/^fn (\w+)/gm)].map(([, name]) => name);
    if (seen.has(part) && names.length > 0 && !names.includes("main")) above.push(...names);
    else {
      tell();
      shown.push(part);
    }
    seen.add(part);
  }
  tell();
  return shown.join("");
}

/** The time of one launch of a kernel, or the least and the most of several, and the speed that is. */
function timeOf(kernel: Kernel, at: readonly number[], times: readonly number[]): string {
  const own = at.map((i) => times[i]);
  const [least, most] = [Math.min(...own), Math.max(...own)];
  const span = own.length === 1 ? least.toFixed(3) : `${least.toFixed(3)} to ${most.toFixed(3)}`;
  const speed = (work: number) => (work / least / 1e6).toFixed(1);
  return least > 0 ? `${span} ms (${speed(flopsOf(kernel))} GFLOP/s, ${speed(bytesOf(kernel))} GB/s)` : `${span} ms`;
}

const count = (n: number) => n.toLocaleString("en");
