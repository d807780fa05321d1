import type { Index } from "../kernel.ts";
import { isWide, readWide } from "./access.ts";
import { Scope } from "./scope.ts";
import { variesAlong } from "./expressions.ts";
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

  const named = new Map<string, string>();
  /** Gives a coordinate a name of its own. */
  const bind = (text: string) => {
    if (/^\w+$/.test(text)) return text;
    if (!named.has(text)) {
      named.set(text, shader.fresh("i"));
      shader.line(`let ${named.get(text)} = ${text};`);
    }
    return named.get(text)!;
  };
  const wide = access !== "element";
  const vectorAxis = access === "across" ? 0 : 1;
  /** The coordinate `j` further along p (0) or q (1). */
  const moved = (which: 0 | 1, j: number) => {
    const axis = which === 0 ? p : q;
    const text = j === 0 ? axis : `${axis} + ${j}u`;
    if (axis === "k" || free.reach <= free.size) return text;
    return `min(${text}, ${free.size - (wide && which === vectorAxis ? 4 : 1)}u)`;
  };
  const load = (i: number, j: number): string => {
    const axes = [...batch, bind(moved(0, i)), bind(moved(1, j))];
    const axis = batch.length + vectorAxis;
    const vector = wide ? { axis, quarter: bind(`${axes[axis]} / 4u`) } : undefined;
    const value = new Scope(shader, { axes, vector }).value({ kind: "load", type: "f32", operand, index }).text;
    // Where K ends inside a vector's or an element's block, each is guarded by itself.
    const guarded = wide ? inner.size % 4 !== 0 : inner.size % inner.step !== 0;
    if (!guarded) return value;
    return `select(${wide ? "vec4<f32>()" : "0.0"}, ${value}, k + ${p === "k" ? i : j}u < ${inner.size}u)`;
  };

  shader.declareBlock(name, `fn ${name}(${params}) -> mat4x4<f32>`, () => {
    if (wide && inner.size % 4 === 0 && inner.size % inner.step !== 0) {
      shader.line(`if (k >= ${inner.size}u) { return mat4x4<f32>(); }`);
    }
    const steps = [0, 1, 2, 3];
    const moving = batch.length + 1 - vectorAxis;
    const even = (index.dynamic ?? []).every(({ value }) => !variesAlong(value, moving));
    if (wide && even && inner.size % 4 === 0 && moved(access === "along" ? 0 : 1, 0) === (access === "along" ? p : q)) {
      // Nothing to guard from one vector to the next: they are a fixed step apart.
      const axes = [...batch, p, bind(moved(1, 0))];
      if (access === "across") [axes[batch.length], axes[batch.length + 1]] = [bind(moved(0, 0)), q];
      const axis = batch.length + vectorAxis;
      const scope = new Scope(shader, { axes, vector: { axis, quarter: `${axes[axis]} / 4u` } });
      shader.line(`let i = ${scope.index(index, 4)};`);
      const step = index.strides[moving] / 4;
      const vectors = steps.map((j) =>
        readWide(shader, operand, j === 0 || step === 0 ? "i" : `i + ${j * step}u`).text
      );
      const matrix = `mat4x4<f32>(\n  ${vectors.slice(0, 2).join(", ")},\n  ${vectors.slice(2).join(", ")})`;
      shader.line(`return ${access === "across" ? `transpose(${matrix})` : matrix};`);
      return;
    }
    const vectors = wide
      ? steps.map((j) => access === "along" ? load(j, 0) : load(0, j))
      : steps.map((i) => `vec4<f32>(${steps.map((j) => load(i, j)).join(", ")})`);
    const matrix = `mat4x4<f32>(\n    ${vectors.join(",\n    ")},\n  )`;
    shader.line(`return ${access === "across" ? `transpose(${matrix})` : matrix};`);
  });
}
