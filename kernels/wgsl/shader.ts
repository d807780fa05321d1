import { byteSize, type DType } from "../../core/dtype.ts";
import type { Operand } from "../kernel.ts";
import { HelperSet } from "./helpers.ts";
import { maxGroups } from "./tile.ts";

/** A compute shader that runs one kernel. */
export interface WgslShader {
  /** What a person calls it: `map f32[512,768]`. */
  readonly name: string;
  /** The WGSL module; its entry point is `main`. */
  readonly text: string;
  /** Workgroups to dispatch. */
  readonly grid: readonly [x: number, y: number];
  /** Binding i is the buffer of operand `bindings[i]`. */
  readonly bindings: readonly number[];
  /** The operand that must hold zeros before the shader runs. */
  readonly clear?: number;
}

/** Columns of a page: no line of a shader is longer. */
const pageWidth = 80;

/** A storage buffer as the module declares it. */
export interface Binding {
  readonly name: string;
  readonly dtype: DType;
  /** Declared as an array of four elements (two words of a 16-bit dtype) rather than of one. */
  readonly wide: boolean;
}

const elementType: Record<DType, readonly [narrow: string, wide: string]> = {
  f32: ["f32", "vec4<f32>"],
  i32: ["i32", "vec4<i32>"],
  u32: ["u32", "vec4<u32>"],
  bool: ["u32", "vec4<u32>"],
  f16: ["u32", "vec2<u32>"],
  bf16: ["u32", "vec2<u32>"],
};

/**
 * A module while it is written. `alias[i]` is the first operand that is given the same buffer as operand i: the two share
 * one binding, as WebGPU refuses a buffer that is bound twice when one binding can write.
 *
 * Every binding is `read_write`, also where the kernel only reads: slices of one buffer may not be bound both ways in one
 * dispatch, and a kernel's text must not depend on whether its operand is a weight or a slice of the arena.
 */
export class ShaderWriter {
  readonly helpers = new HelperSet();
  #lines: string[] = [];
  readonly #declarations = new Map<string, string>();
  readonly #bound: number[] = [];
  readonly #bindings: Binding[] = [];
  #indent = 0;
  #names = 0;

  /** `narrow` holds the operands that some access needs element by element. */
  constructor(
    readonly name: string,
    readonly operands: readonly Operand[],
    readonly alias: readonly number[],
    narrow: ReadonlySet<number>,
    names: (operand: number) => string = (i) => `${operands[i].access === "write" ? "out" : "in"}${i}`,
  ) {
    const shared = new Set([...narrow].map((i) => alias[i]));
    operands.forEach((operand, i) => {
      const first = operands[alias[i]];
      if (first.dtype !== operand.dtype && byteSize[first.dtype] !== byteSize[operand.dtype]) {
        throw new Error(`operands ${alias[i]} and ${i} share a buffer as ${first.dtype} and ${operand.dtype}`);
      }
      if (alias[i] !== i) return void this.#bindings.push(this.#bindings[alias[i]]);
      this.#bound.push(i);
      this.#bindings.push({ name: names(i), dtype: operand.dtype, wide: !shared.has(i) });
    });
  }

  /** The binding that operand `i` is read and written through. */
  binding(i: number): Binding {
    return this.#bindings[i];
  }

  /** A name not used before. */
  fresh(prefix = "v"): string {
    return `${prefix}${this.#names++}`;
  }

  /** Adds a line, or several, at the current depth. */
  line(text: string): void {
    for (const part of text.split("\n")) this.#lines.push(...wrap("  ".repeat(this.#indent) + part));
  }

  /** Adds `head {`, what `body` writes, and `}`; on one line where that is one statement and fits. */
  block(head: string, body: () => void): void {
    this.line(`${head} {`.trimStart());
    const start = this.#lines.length;
    this.#indent++;
    body();
    this.#indent--;
    const opening = this.#lines[start - 1];
    const statement = this.#lines[start]?.trim();
    const joined = `${opening} ${statement} }`;
    const single = this.#lines.length === start + 1 && !statement.startsWith("//") && !statement.endsWith("}");
    if (single && joined.length <= pageWidth) this.#lines.splice(start - 1, 2, joined);
    else this.line("}");
  }

  /** Adds a declaration at module scope, unless one of this name is there. */
  declare(name: string, text: string): void {
    if (!this.#declarations.has(name)) this.#declarations.set(name, text);
  }

  /** Adds a function at module scope: `head {`, what `body` writes, and `}`. */
  declareBlock(name: string, head: string, body: () => void): void {
    const [lines, indent] = [this.#lines, this.#indent];
    this.#lines = [];
    this.#indent = 0;
    this.block(head, body);
    this.declare(name, `\n${this.#lines.join("\n")}`);
    this.#lines = lines;
    this.#indent = indent;
  }

  /** Writes the entry point around `body`, which may use `group` (the flat workgroup number) and `lane`. */
  main(groups: number, size: readonly number[], body: () => void): WgslShader {
    const folded = groups > maxGroups;
    this.line(`@compute @workgroup_size(${size.join(", ")})`);
    this.line("fn main(\n  @builtin(workgroup_id) at: vec3<u32>,\n  @builtin(local_invocation_index) lane: u32,\n) {");
    this.#indent++;
    this.line(folded ? `let group = at.y * ${maxGroups}u + at.x;` : "let group = at.x;");
    body();
    this.#indent--;
    this.line("}");
    return {
      name: this.name,
      text: this.#print(),
      grid: folded ? [maxGroups, Math.ceil(groups / maxGroups)] : [groups, 1],
      bindings: this.#bound,
    };
  }

  #print(): string {
    const bindings = this.#bound.map((operand, i) => {
      const { name, dtype, wide } = this.#bindings[operand];
      const { size, access } = this.operands[operand];
      return `// ${name}: ${dtype}[${size}], ${access}\n` +
        `@group(0) @binding(${i}) var<storage, read_write> ${name}: array<${elementType[dtype][wide ? 1 : 0]}>;\n`;
    });
    const parts = [
      `// ${this.name}\n`,
      ...bindings,
      ...[...this.#declarations.values()].map((text) => `${text}\n`),
      this.helpers.print(),
      `\n${this.#lines.join("\n")}\n`,
    ];
    return parts.join("");
  }
}

/** A line broken, where it is longer than a page is wide, at a comma or before an operator. */
function wrap(line: string): string[] {
  const lines: string[] = [];
  const indent = `${line.match(/^ */)![0]}    `;
  while (line.length > pageWidth) {
    const breaks = [...line.slice(0, pageWidth).matchAll(/(?<=,) | (?=(\|\||&&|[-+*&|^]|[!=]=) )/g)].map((m) =>
      m.index
    );
    const at = breaks.at(-1) ?? 0;
    if (at <= indent.length) break;
    lines.push(line.slice(0, at));
    line = indent + line.slice(at + 1);
  }
  return [...lines, line.trimEnd()];
}
