/** Kernels in words and numbers: what each does, the work it is, the bytes it touches. */
import { sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import { type Expr, walk } from "../ir/expr.ts";
import type { Kernel, Program } from "../ir/kernel.ts";

const times = (sizes: readonly number[]) => sizes.length === 0 ? "1" : sizes.join(" x ");

/** `contract 512 x 768, k 768 + 8`. */
export function describeKernel(kernel: Kernel): string {
  switch (kernel.kind) {
    case "map":
      return `map ${times(kernel.shape)}`;
    case "row": {
      const phases = kernel.phases.map((p) => p.kind === "reduce" ? p.op : p.kind);
      return `row ${times(kernel.rows)} of ${kernel.cols}: ${phases.join(", ")}`;
    }
    case "contract": {
      const batch = kernel.batch.length > 0 ? `${times(kernel.batch)} of ` : "";
      return `contract ${batch}${kernel.m} x ${kernel.n}, k ${
        kernel.segments.map((s) => s.rounded ? `${s.k} in bytes` : s.k).join(" + ")
      }`;
    }
    case "scatter":
      return `scatter ${kernel.count} of ${kernel.cols} into ${kernel.targets}`;
    case "attention": {
      const { batch, queries, keys, heads, kvHeads, width, cap } = kernel;
      const bound = cap === undefined ? "" : `, scores within ${cap}`;
      return `attention ${kernel.pass}: ${batch} x ${queries} x ${keys}, ${heads}/${kvHeads} heads of ${width}${bound}`;
    }
  }
}

/** Floating-point operations of one launch: a multiply-add is two, any other scalar operation one. */
export function flopsOf(kernel: Kernel): number {
  switch (kernel.kind) {
    case "map":
      return sizeOf(kernel.shape) * scalarOps(kernel.stores.map((s) => s.value));
    case "row": {
      const values = kernel.phases.flatMap((p) => p.kind === "reduce" ? [p.value] : p.stores.map((s) => s.value));
      const reduces = kernel.phases.filter((p) => p.kind === "reduce").length;
      return sizeOf(kernel.rows) * kernel.cols * (scalarOps(values) + reduces);
    }
    case "contract": {
      const points = sizeOf(kernel.batch) * kernel.m * kernel.n;
      const depth = kernel.segments.reduce((k, s) => k + s.k, 0);
      return points * (2 * depth + scalarOps(kernel.stores.map((s) => s.value)));
    }
    case "scatter":
      return kernel.count * kernel.cols;
    case "attention": {
      const pairs = kernel.batch * kernel.heads * kernel.queries * kernel.keys * (kernel.causal ? 0.5 : 1);
      const products = { forward: 2, "backward-q": 3, "backward-kv": 4 }[kernel.pass];
      return pairs * kernel.width * 2 * products;
    }
  }
}

/** Bytes of every operand, counted once: what a launch reads and writes if nothing is read twice. */
export function bytesOf(kernel: Kernel): number {
  return kernel.operands.reduce((n, o) => n + storageBytes(o.dtype, o.size) * (o.access === "inout" ? 2 : 1), 0);
}

/** Distinct scalar operations of some expressions. */
function scalarOps(exprs: readonly Expr[]): number {
  const counts = (e: Expr) => e.kind === "op" && e.type === "f32" && e.op !== "convert";
  return [...walk(exprs)].filter(counts).length;
}

/** A plan as text: each step with the memory of its operands. */
export function printProgram(program: Program): string {
  const lines = program.steps.map(({ kernel, buffers }, i) => {
    const places = buffers.map((b, o) => {
      const { access } = kernel.operands[o];
      const mark = access === "read" ? "" : access === "write" ? "→" : "↔";
      return mark + (b.kind === "arena" ? `@${b.offset}` : `${b.kind === "argument" ? "arg" : "out"}${b.index}`);
    });
    return `${String(i).padStart(3)}  ${describeKernel(kernel)}  ${places.join(" ")}`;
  });
  return [`${program.steps.length} steps, ${program.arenaBytes} bytes of arena`, ...lines].join("\n");
}
