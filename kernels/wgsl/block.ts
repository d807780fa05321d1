import { isWide, readWide } from "./access.ts";
import { Scope } from "./scope.ts";
import { type Index, variesAlong } from "../ir/expr.ts";
import type { ShaderWriter } from "./shader.ts";

/**
 * How a 4 x 4 block of a matrix with axes (p, q) is read: as vectors along q, as vectors along p that are then
 * transposed, or element by element.
 */
export type BlockAccess = "along" | "across" | "element";

/** Picks the access for an index over [...batch, p, q] of sizes `p` and `q`. */
export function blockAccess(index: Index, rank: number, p: number, q: number): BlockAccess {
  if (q % 4 === 0 && isWide(index, rank + 1)) return "along";
  if (p % 4 === 0 && isWide(index, rank)) return "across";
  return "element";
}

/**
 * Declares `name(batch…, p, q) -> mat4x4<f32>`: columns are the vectors at p, p + 1, p + 2, p + 3, each over q … q + 3.
 * Both are multiples of 4. `free` is the axis of the product's own rows or columns, of which the tiles touch `reach`:
 * beyond its size any values will do, as they are not stored. Beyond the end of K there are zeros.
 */
export function declareBlockLoad(
  { shader, batch }: { readonly shader: ShaderWriter; readonly batch: readonly string[] },
  name: string,
  { operand, index }: { readonly operand: number; readonly index: Index },
  [p, q]: readonly ["m", "k"] | readonly ["k", "n"],
  free: { readonly size: number; readonly reach: number },
  inner: { readonly size: number; readonly step: number },
): void {
  const sizeOf = (axis: string) => axis === "k" ? inner.size : free.size;
  const access = shader.binding(operand).wide ? blockAccess(index, batch.length, sizeOf(p), sizeOf(q)) : "element";
  const params = [...batch.filter((b) => b !== "0u"), p, q].map((axis) => `${axis}: u32`).join(", ");

  const wide = access !== "element";
  const vectorAxis = batch.length + (access === "across" ? 0 : 1);
  const moving = batch.length + (access === "across" ? 1 : 0);
  const scope = (axes: readonly string[]) => {
    const quarter = axes[vectorAxis];
    const vector = { axis: vectorAxis, quarter: /^\w+$/.test(quarter) ? `${quarter} / 4u` : `(${quarter}) / 4u` };
    return new Scope(shader, { axes, vector: wide ? vector : undefined });
  };
  const head = (function_: string, result: string) => `fn ${function_}(${params}) -> ${result}`;
  const guard = (zero: string) => shader.line(`if (k >= ${inner.size}u) { return ${zero}; }`);
  const overshoots = free.reach > free.size;
  const movingAxis = access === "across" ? q : p;
  const steady = (index.dynamic ?? []).every(({ value }) => !variesAlong(value, moving));

  if (wide && steady && (movingAxis === "k" ? inner.size % 4 === 0 : !overshoots)) {
    // Nothing to look after from one vector to the next: they are a fixed step apart.
    shader.declareBlock(name, head(name, "mat4x4<f32>"), () => {
      if (inner.size % inner.step !== 0) guard("mat4x4<f32>()");
      const axes = [...batch, p, q] as string[];
      if (overshoots) {
        shader.line(`let at = min(${axes[vectorAxis]}, ${free.size - 4}u);`);
        axes[vectorAxis] = "at";
      }
      shader.line(`let i = ${scope(axes).index(index, 4)};`);
      const step = index.strides[moving] / 4;
      const vectors = steps.map((j) =>
        readWide(shader, operand, j === 0 || step === 0 ? "i" : `i + ${j * step}u`).text
      );
      returnMatrix(shader, vectors, access === "across");
    });
    return;
  }

  const part = name.replace("load", "part");
  shader.declareBlock(part, head(part, wide ? "vec4<f32>" : "f32"), () => {
    if (inner.size % inner.step !== 0) guard(wide ? "vec4<f32>()" : "0.0");
    const axes = [...batch, p, q] as string[];
    if (overshoots) {
      const at = axes.length - (p === "k" ? 1 : 2);
      shader.line(`let at = min(${axes[at]}, ${free.size - (wide && at === vectorAxis ? 4 : 1)}u);`);
      axes[at] = "at";
    }
    const load = scope(axes).value({ kind: "load", type: "f32", operand, index });
    shader.line(`return ${load.text};`);
  });
  shader.declareBlock(name, head(name, "mat4x4<f32>"), () => {
    const moved = (axis: string, j: number) => j === 0 ? axis : `${axis} + ${j}u`;
    const outer = batch.filter((b) => b !== "0u").map((b) => `${b}, `).join("");
    const call = (i: number, j: number) => `${part}(${outer}${moved(p, i)}, ${moved(q, j)})`;
    if (wide) {
      return returnMatrix(
        shader,
        steps.map((j) => access === "across" ? call(0, j) : call(j, 0)),
        access === "across",
      );
    }
    shader.line("return mat4x4<f32>(");
    steps.forEach((i) => shader.line(`  ${steps.map((j) => call(i, j)).join(", ")}${i < 3 ? "," : ");"}`));
  });
}

const steps = [0, 1, 2, 3];

/** Four vectors as the columns of a matrix, or as its rows. */
function returnMatrix(shader: ShaderWriter, vectors: readonly string[], transposed: boolean): void {
  const matrix = `mat4x4<f32>(${vectors.join(", ")})`;
  shader.line(`return ${transposed ? `transpose(${matrix})` : matrix};`);
}
