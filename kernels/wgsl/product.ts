import type { ContractKernel } from "../kernel.ts";
import { splitAxes } from "./axes.ts";
import { declareBlockLoad } from "./block.ts";
import { type Term, term } from "./scalar.ts";
import { Scope } from "./scope.ts";
import type { ShaderWriter } from "./shader.ts";
import type { TileConfig } from "./tile.ts";

/** What the two ways of multiplying, by tiles and by slices of K, have in common. */
export interface ProductFrame {
  readonly shader: ShaderWriter;
  readonly kernel: ContractKernel;
  readonly tile: TileConfig;
  /** Whether the stores take four columns at a time. */
  readonly vector: boolean;
  /** Points of the batch axes. */
  readonly count: number;
  /** The axes that some index needs. */
  readonly used: ReadonlySet<number>;
}

/**
 * Names the batch axes of the workgroup, `groups` of which share a point of them, and declares the loads of all segments,
 * whose tiles reach `reach` rows and columns and step through K by `step`. Returns the batch axes' names.
 */
export function openProduct(
  { shader, kernel, used }: ProductFrame,
  groups: number,
  reach: { readonly m: number; readonly n: number },
  step: number,
): readonly string[] {
  const { batch, m, n, segments } = kernel;
  if (batch.some((size, i) => size !== 1 && used.has(i))) {
    shader.line(`let batch = ${groups === 1 ? "group" : `group / ${groups}u`};`);
  }
  const names = splitAxes(shader, "batch", batch, used, "batch");
  const at = { shader, batch: names };
  segments.forEach(({ k, a, b }, s) => {
    declareBlockLoad(at, `load_a${s}`, a, ["m", "k"], { size: m, reach: reach.m }, { size: k, step });
    declareBlockLoad(at, `load_b${s}`, b, ["k", "n"], { size: n, reach: reach.n }, { size: k, step });
  });
  return names;
}

/** The batch axes as the first arguments of a load. */
export function batchArguments(batch: readonly string[]): string {
  return batch.filter((name) => name !== "0u").map((name) => `${name}, `).join("");
}

/**
 * The epilogue at row `m` and the four columns of block `block`, whose sums are the vector `sums`. `leave` is what an
 * invocation does with columns past the end, where there are any.
 */
export function storeColumns(
  { shader, kernel: { n, stores }, vector }: ProductFrame,
  batch: readonly string[],
  block: string,
  sums: string,
  leave: "continue" | "return" | null,
): void {
  const store = (sum: Term) => {
    const scope = new Scope(shader, {
      axes: [...batch, "m", "n"],
      vector: vector ? { axis: batch.length + 1, quarter: "n4" } : undefined,
      results: new Map([[0, sum]]),
    });
    scope.store(stores);
  };
  shader.line(`let n4 = ${block};`);
  if (leave && vector) shader.line(`if (n4 >= ${n / 4}u) { ${leave}; }`);
  shader.line(`let sums = ${sums};`);
  if (vector) {
    shader.line("let n = n4 * 4u;");
    return store({ text: "sums", type: "f32", width: 4, atom: true });
  }
  shader.block("for (var j = 0u; j < 4u; j++)", () => {
    shader.line("let n = n4 * 4u + j;");
    shader.line(`if (n >= ${n}u) { ${leave ?? "break"}; }`);
    shader.line("let sum = sums[j];");
    store(term("sum", "f32"));
  });
}
