import { byteSize, type DType, storageBytes } from "../../core/dtype.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { DeviceError } from "../../core/errors.ts";
import type { Operand } from "../ir/kernel.ts";
import { HelperSet } from "./helpers.ts";
import { maxGroups } from "./tile.ts";

/** A compute shader that runs one kernel. */
export interface WgslShader {
  /** What a person calls it: `map f32[512,768]`. */
  readonly name: string;
  /** The WGSL module; its entry point is `main`. */
  readonly text: string;
  /** The module cut before each function and after its bindings: kernels of one program share many of these. */
  readonly parts: readonly string[];
  /** How this kernel is tiled, in words: `2 x 4 blocks a lane, 8 x 1 lanes, operands in place`. */
  readonly tiling: string;
  /** Workgroups to dispatch. */
  readonly grid: readonly [x: number, y: number];
  /** Binding i is the buffer of an operand, or the window on it that begins at byte `start`. */
  readonly bindings: readonly { readonly operand: number; readonly start: number }[];
  /** The operand that must hold zeros before the shader runs. */
  readonly clear?: number;
}

/** Windows begin at multiples of this many bytes, WebGPU's rule for bindings. */
const windowUnit = 256;

/** Columns of a page: no line of a shader is longer. */
const pageWidth = 80;

/** A storage buffer as the module declares it. */
export interface Binding {
  readonly name: string;
  readonly dtype: DType;
  /** Declared as an array of four elements (two words of a 16-bit dtype) rather than of one. */
  readonly wide: boolean;
  /** Declared as atomic words, because halves of them are written one by one. */
  readonly atomic: boolean;
  /** Bindings it takes: an operand larger than the device binds at once is bound in windows. */
  readonly windows: number;
}

/** A packed array is words, which `packed.ts` reads. */
const packedElement = ["u32", "vec4<u32>"] as const;

const elementType: Record<DType, readonly [narrow: string, wide: string]> = {
  f32: ["f32", "vec4<f32>"],
  i32: ["i32", "vec4<i32>"],
  u32: ["u32", "vec4<u32>"],
  bool: ["u32", "vec4<u32>"],
  f16: ["u32", "vec2<u32>"],
  bf16: ["u32", "vec2<u32>"],
  q4_0: packedElement,
  q4_1: packedElement,
  q8_0: packedElement,
  q4_k: packedElement,
  q6_k: packedElement,
  nf4: packedElement,
  nf4_f32: packedElement,
  fp4_f32: packedElement,
};

/** What all kernels' schedules say. */
export interface Dispatch {
  readonly workgroups: number;
  readonly workgroupSize: number;
  /** The operands that some access needs element by element. */
  readonly narrow: readonly number[];
  /** Bytes that one binding may have. */
  readonly window: number;
  /** The first operand that is given the same buffer as operand i. */
  readonly alias: readonly number[];
}

/**
 * A module while it is written. `alias[i]` is the first operand that is given the same buffer as operand i: the two share
 * one binding, as WebGPU refuses a buffer that is bound twice when one binding can write.
 *
 * Every binding is `read_write`, also where the kernel only reads: slices of one buffer may not be bound both ways in one
 * dispatch, and a kernel's text must not depend on whether its operand is a weight or a slice of the arena.
 */
export class ShaderWriter {
  readonly helpers = new HelperSet();
  /** How the kernel is tiled, where there is more to say than the lanes of a workgroup. */
  tiling = "";
  #lines: string[] = [];
  readonly #declarations = new Map<string, string>();
  readonly #bindings: Binding[] = [];
  readonly #windowBytes: number;
  #indent = 0;
  #names = 0;

  constructor(
    readonly name: string,
    readonly operands: readonly Operand[],
    readonly dispatch: Dispatch,
    names: (operand: number) => string = (i) => `${operands[i].access === "write" ? "out" : "in"}${i}`,
  ) {
    const { alias, narrow, window } = dispatch;
    this.#windowBytes = Math.floor(window / windowUnit) * windowUnit;
    const shared = new Set(narrow.map((i) => alias[i]));
    operands.forEach((operand, i) => {
      const first = operands[alias[i]];
      if (first.dtype !== operand.dtype && byteSize[first.dtype] !== byteSize[operand.dtype]) {
        throw new Error(`operands ${alias[i]} and ${i} share a buffer as ${first.dtype} and ${operand.dtype}`);
      }
      if (alias[i] !== i) return void this.#bindings.push(this.#bindings[alias[i]]);
      const size = Math.max(...operands.filter((_, j) => alias[j] === i).map(({ size }) => size));
      const windows = Math.max(1, Math.ceil(storageBytes(operand.dtype, size) / this.#windowBytes));
      const packed = operand.dtype === "f16" || operand.dtype === "bf16";
      const written = operands.some(({ access }, j) => alias[j] === i && access !== "read");
      const atomic = packed && written && shared.has(i);
      this.#bindings.push({ name: names(i), dtype: operand.dtype, wide: !shared.has(i), atomic, windows });
      if (windows > 1) this.#declareWindows(i);
    });
  }

  /** The binding that operand `i` is read and written through. */
  binding(i: number): Binding {
    return this.#bindings[i];
  }

  /** What operand `i` holds at `index`: an element or a word, or four elements of a wide binding. */
  read(i: number, index: string): string {
    const { name, windows, atomic } = this.#bindings[i];
    if (windows > 1) return `read_${name}(${index})`;
    return atomic ? `atomicLoad(&${name}[${index}])` : `${name}[${index}]`;
  }

  /** The statement that writes `value` there. */
  write(i: number, index: string, value: string): string {
    const { name, windows } = this.#bindings[i];
    return windows > 1 ? `write_${name}(${index}, ${value});` : `${name}[${index}] = ${value};`;
  }

  /**
   * The statements that write the 16 bits of element `at`, a name, where no one writes whole words. The other half of the
   * word may be written at the same time: clearing and setting one half leaves it as it is.
   */
  writeHalf(i: number, at: string, bits: string): string {
    const { name } = this.#bindings[i];
    const [word, shift] = [`${name}[${at} / 2u]`, `(16u * (${at} & 1u))`];
    return `atomicAnd(&${word}, 0xffff0000u >> ${shift});\natomicOr(&${word}, ${bits} << ${shift});`;
  }

  /** Declares the functions that find the window of an index. */
  #declareWindows(i: number): void {
    const { name, dtype, wide, windows, atomic } = this.#bindings[i];
    if (atomic) {
      throw new DeviceError(
        `Cannot write ${dtype} element by element into an array that is bound in ${windows} parts in "${this.name}": ` +
          `convert in a kernel of its own`,
      );
    }
    const type = elementType[dtype][wide ? 1 : 0];
    const step = this.#windowBytes / (wide ? isPacked(dtype) ? 16 : 4 * byteSize[dtype] : 4);
    const each = (text: (binding: string, index: string) => string) =>
      Array.from({ length: windows }, (_, w) => {
        const statement = text(windowName(name, w), w === 0 ? "i" : `i - ${w * step}u`);
        return w === windows - 1 ? `  ${statement}` : `  if (i < ${(w + 1) * step}u) { ${statement} }`;
      }).join("\n");
    const reads = each((binding, index) => `return ${binding}[${index}];`);
    this.declare(`read_${name}`, `\nfn read_${name}(i: u32) -> ${type} {\n${reads}\n}`);
    if (!this.operands.some(({ access }, j) => this.dispatch.alias[j] === i && access !== "read")) return;
    const writes = each((binding, index) => `${binding}[${index}] = x; return;`);
    this.declare(`write_${name}`, `\nfn write_${name}(i: u32, x: ${type}) {\n${writes}\n}`);
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
  main(body: () => void): WgslShader {
    const { workgroups: groups, workgroupSize: lanes } = this.dispatch;
    const folded = groups > maxGroups;
    this.line(`@compute @workgroup_size(${lanes})`);
    this.line("fn main(@builtin(workgroup_id) at: vec3<u32>,\n        @builtin(local_invocation_index) lane: u32) {");
    this.#indent++;
    this.line(folded ? `let group = at.y * ${maxGroups}u + at.x;` : "let group = at.x;");
    body();
    this.#indent--;
    this.line("}");
    const parts = this.#parts();
    return {
      name: this.name,
      text: parts.join(""),
      parts,
      tiling: this.tiling.includes("lanes") ? this.tiling : `${this.tiling}${this.tiling ? ", " : ""}${lanes} lanes`,
      grid: folded ? [maxGroups, Math.ceil(groups / maxGroups)] : [groups, 1],
      bindings: this.#bound(),
    };
  }

  #bound(): { operand: number; start: number }[] {
    return this.#bindings.flatMap(({ windows }, operand) =>
      this.dispatch.alias[operand] !== operand
        ? []
        : Array.from({ length: windows }, (_, w) => ({ operand, start: w * this.#windowBytes }))
    );
  }

  #parts(): string[] {
    const bound = this.#bound().map(({ operand, start }, i) => {
      const { name, dtype, wide, atomic } = this.#bindings[operand];
      const { size, access } = this.operands[operand];
      const binding = windowName(name, start / this.#windowBytes);
      const type = atomic ? "atomic<u32>" : elementType[dtype][wide ? 1 : 0];
      return {
        note: `${binding}: ${dtype}[${size}]${access === "read" ? "" : `, ${access}`}${
          start > 0 ? ` from byte ${start}` : ""
        }`,
        declaration: `@group(0) @binding(${i}) var<storage, read_write> ${binding}: array<${type}>;\n`,
      };
    });
    const notes = wrap(`// ${bound.map(({ note }) => note).join("; ")}`, "// ").join("\n");
    return [
      `// ${this.name}\n${notes}\n${bound.map(({ declaration }) => declaration).join("")}`,
      ...[...this.#declarations.values()].map((text) => `${text}\n`),
      ...this.helpers.print(),
      `\n${this.#lines.join("\n")}\n`,
    ];
  }
}

/** The name of window `w` of a binding. */
function windowName(name: string, w: number): string {
  return w === 0 ? name : `${name}_${w}`;
}

/** A line broken, where it is longer than a page is wide, at a comma or else before an operator; the rest begins with `lead`. */
function wrap(line: string, lead = "    "): string[] {
  const lines: string[] = [];
  const indent = `${line.match(/^ */)![0]}${lead}`;
  while (line.length > pageWidth) {
    const page = line.slice(0, pageWidth);
    const last = (pattern: RegExp) => [...page.matchAll(pattern)].at(-1)?.index ?? 0;
    const [comma, operator] = [last(/(?<=[,;]) /g), last(/ (?=(\|\||&&|[-+*&|^]|[!=]=) )/g)];
    const at = comma > pageWidth / 2 ? comma : Math.max(comma, operator);
    if (at <= indent.length) break;
    lines.push(line.slice(0, at));
    line = indent + line.slice(at + 1);
  }
  return [...lines, line.trimEnd()];
}
