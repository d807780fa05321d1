import { nodesOf } from "../core/ir/graph.ts";
import { printGraph } from "../core/ir/print.ts";
import { trace } from "../core/trace.ts";
import { build } from "./compile.ts";
import { bytesOf, describeKernel, flopsOf, printProgram } from "./describe.ts";
import type { Kernel } from "./kernel.ts";
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
 * each kernel once with its FLOPs, bytes and WGSL. Nothing runs; arguments give the avals and may be values or tensors.
 */
export function explain(f: (...args: any[]) => unknown, options: ExplainOptions = {}): (...args: unknown[]) => string {
  const { tile = gpuTile, brief = false } = options;
  return (...args) => {
    const { graph, program } = build(trace(f, args).graph);
    const steps = new Map<string, { kernel: Kernel; at: number[] }>();
    program.steps.forEach(({ kernel }, i) => {
      const key = JSON.stringify(kernel);
      const known = steps.get(key);
      if (known) known.at.push(i);
      else steps.set(key, { kernel, at: [i] });
    });
    const kernels = [...steps.values()].map(({ kernel, at }) => {
      const head = `step ${at.join(", ")}: ${describeKernel(kernel)}\n` +
        `  ${flopsOf(kernel).toLocaleString("en")} FLOPs, ${bytesOf(kernel).toLocaleString("en")} bytes`;
      return brief ? head : `${head}\n${emitWgsl(kernel, tile).text.trimEnd()}`;
    });
    return [
      `graph: ${nodesOf(graph.outputs).length} nodes`,
      printGraph(graph),
      "",
      `plan: ${printProgram(program)}`,
      "",
      ...kernels.flatMap((k) => [k, ""]),
    ].join("\n").trimEnd() + "\n";
  };
}
