import type { ContractKernel } from "../../ir/kernel.ts";
import { splitAxes } from "../axes.ts";
import { declareBlockLoad } from "../block.ts";
import { type Term, term } from "../scalar.ts";
import { Scope } from "../scope.ts";
import type { ShaderWriter } from "../shader.ts";

/** What the two ways of multiplying, by tiles and by slices of K, have in common. */
export interface ProductFrame<S = unknown> {
  readonly shader: ShaderWriter;
  readonly kernel: ContractKernel;
  readonly schedule: S;
  /** Whether the stores take four columns at a time. */
  readonly vector: boolean;
  /** Points of the batch axes. */
  readonly count: number;
  /** The axes that some index needs. */
  readonly used: ReadonlySet<number>;
}

/**
 * Names the batch axes of the workgroup, `groups` of which share a point of them, and declares the loads of all segments,
 * whose tiles reach `reach` rows and columns and step through a K by `step`. Returns the batch axes' names.
 */
export function openProduct(
  { shader, kernel, used }: ProductFrame,
  groups: number,
  reach: { readonly m: number; readonly n: number },
  stepOf: (segment: number) => number,
): readonly string[] {
  const { batch, m, n, segments } = kernel;
  if (batch.some((size, i) => size !== 1 && used.has(i))) {
    shader.line(`let batch = ${groups === 1 ? "group" : `group / ${groups}u`};`);
  }
  const names = splitAxes(shader, "batch", batch, used, "batch");
  const at = { shader, batch: names };
  segments.forEach(({ k, a, b }, s) => {
    const step = stepOf(s);
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
 * Declares the epilogue of a block of four rows, or of a single row, that begins at (m, n), multiples of four; gives the
 * function's name. What lies past the end of the tiles' `reach` is not stored.
 */
export function declareStore(
  { shader, kernel: { m, n, stores }, vector }: ProductFrame,
  batch: readonly string[],
  reach: { readonly m: number; readonly n: number },
): "store_block" | "store_row" {
  const outer = batch.filter((name) => name !== "0u");
  const parameters = [...outer, "m", "n"].map((name) => `${name}: u32, `).join("");
  shader.declareBlock("store_row", `fn store_row(${parameters}sums: vec4<f32>)`, () => {
    const ends = [...(reach.m > m ? [`m >= ${m}u`] : []), ...(vector && reach.n > n ? [`n >= ${n}u`] : [])];
    if (ends.length > 0) shader.line(`if (${ends.join(" || ")}) { return; }`);
    const axes = [...batch, m === 1 ? "0u" : "m"];
    const epilogue = (column: string, sum: Term) => {
      const names = { axes: [...axes, column], results: new Map([[0, sum]]) };
      new Scope(shader, vector ? { ...names, vector: { axis: batch.length + 1, quarter: "n4" } } : names).store(stores);
    };
    if (vector) {
      shader.line("let n4 = n / 4u;");
      return epilogue("n", { text: "sums", type: "f32", width: 4, atom: true });
    }
    shader.line("var each = sums;");
    const end = reach.n > n ? `min(4u, ${n}u - min(n, ${n}u))` : "4u";
    shader.block(`for (var j = 0u; j < ${end}; j++)`, () => {
      shader.line("let column = n + j;\nlet sum = each[j];");
      epilogue("column", term("sum", "f32"));
    });
  });
  if (m === 1) return "store_row";
  shader.declareBlock("store_block", `fn store_block(${parameters}sums: mat4x4<f32>)`, () => {
    [0, 1, 2, 3].forEach((i) => {
      shader.line(`store_row(${outer.map((name) => `${name}, `).join("")}m${i ? ` + ${i}u` : ""}, n, sums[${i}]);`);
    });
  });
  return "store_block";
}
