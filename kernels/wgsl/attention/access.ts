import { type AttentionKernel, type AttentionOperand, attentionOperands } from "../../ir/kernel.ts";
import { isHalfWord, readElement, readWide } from "../access.ts";
import type { Schedule } from "../schedule.ts";
import { ShaderWriter } from "../shader.ts";

/**
 * How attention reads and writes its operands: functions declared once each, that give four rows of four elements,
 * statistics of four queries, and which keys are seen. Rows past the last are the last once more: their weight is 0.
 */
export class AttentionAccess {
  readonly shader: ShaderWriter;
  readonly #names: readonly AttentionOperand[];
  /** Whether rows are read four elements at a time. */
  readonly #wide: boolean;

  constructor(readonly kernel: AttentionKernel, schedule: Schedule<"attention">) {
    const { operands, width, pass, batch, heads, kvHeads, queries, keys } = kernel;
    this.#wide = schedule.unit === 4;
    this.#names = attentionOperands(kernel);
    const name = `attention ${pass} [${batch},${heads}/${kvHeads},${queries},${keys},${width}]`;
    this.shader = new ShaderWriter(name, operands, schedule, (i) => `${this.#names[i]}_`);
  }

  /** The number of an operand. */
  at(operand: AttentionOperand): number {
    return this.#names.indexOf(operand);
  }

  /** An element of an operand that is not of rank 4. */
  word(operand: AttentionOperand, index: string): string {
    const start = this.kernel.starts?.[operand] ?? 0;
    return readElement(this.shader, this.at(operand), start === 0 ? index : `${index} + ${start}u`).text;
  }

  /** The place of the first query among the keys, an i32. */
  offset(): string {
    const { offset } = this.kernel;
    return offset === null ? this.word("offset", "0u") : `${offset}i`;
  }

  /** Four rows from `b, token, head, d` on, each its vector number d; the token is a multiple of four. */
  block(operand: AttentionOperand, at: string): string {
    const { shader, kernel: { queries, keys } } = this;
    const tokens = operand === "k" || operand === "v" ? keys : queries;
    const name = `block_${operand}`;
    shader.declareBlock(name, `fn ${name}(b: u32, t: u32, head: u32, d: u32) -> mat4x4<f32>`, () => {
      const step = this.kernel.layouts[this.at(operand)]!.token / (this.#wide ? 4 : 1);
      // A block of four tokens is there in whole or not at all, or each row has to be looked after.
      const inWhole = tokens % 4 === 0;
      if (inWhole) shader.line(`let at = ${this.#place(operand, `min(t, ${tokens - 4}u)`)};`);
      const rows = [0, 1, 2, 3].map((r) => {
        if (inWhole) return this.#vector(operand, r === 0 ? "at" : `at + ${r * step}u`);
        shader.line(`let at${r} = ${this.#place(operand, `min(t + ${r}u, ${tokens - 1}u)`)};`);
        return this.#vector(operand, `at${r}`);
      });
      shader.line("return mat4x4<f32>(");
      rows.forEach((row, r) => shader.line(`  ${row}${r < 3 ? "," : ");"}`));
    });
    return `${name}(${at})`;
  }

  /** The statement that stores the rows of a block from `b, token, head` on, as their vector number `d`. */
  storeBlock(operand: AttentionOperand, at: string, d: string, block: string): string {
    const { shader, kernel: { queries, keys, width } } = this;
    const tokens = operand === "dk" || operand === "dv" ? keys : queries;
    const params = "b: u32, t: u32, head: u32, d: u32";
    const row = `store_row_${operand}`;
    shader.declareBlock(row, `fn ${row}(${params}, x: vec4<f32>)`, () => {
      shader.line(`if (t >= ${tokens}u || d >= ${Math.ceil(width / 4)}u) { return; }`);
      shader.line(`let at = ${this.#place(operand, "t")};`);
      const i = this.at(operand);
      if (this.#wide) return shader.line(shader.write(i, "at", "x"));
      for (let e = 0; e < 4; e++) {
        const write = shader.write(i, `at + ${e}u`, `x[${e}]`);
        shader.line(width % 4 === 0 ? write : `if (d * 4u + ${e}u < ${width}u) { ${write} }`);
      }
    });
    const name = `store_${operand}`;
    shader.declareBlock(name, `fn ${name}(${params}, x: mat4x4<f32>)`, () => {
      for (let r = 0; r < 4; r++) shader.line(`${row}(b, t${r ? ` + ${r}u` : ""}, head, d, x[${r}]);`);
    });
    return `${name}(${at}, ${d}, ${block});`;
  }

  /** A statistic of the four queries from `b, h, i` on. */
  stats(operand: "lse" | "delta", at: string): string {
    const { shader, kernel: { heads, queries } } = this;
    const name = `stats_${operand}`;
    shader.declareBlock(name, `fn ${name}(b: u32, h: u32, i: u32) -> vec4<f32>`, () => {
      shader.line(`let at = (b * ${heads}u + h) * ${queries}u;`);
      const each = (r: number) => this.word(operand, `at + min(i + ${r}u, ${queries - 1}u)`);
      shader.line(`return vec4<f32>(${each(0)}, ${each(1)},\n  ${each(2)}, ${each(3)});`);
    });
    return `${name}(${at})`;
  }

  /** Which of the four keys from `b, j` on are there and not masked. */
  seenKeys(at: string): string {
    const { shader, kernel: { keys } } = this;
    shader.declareBlock("seen_keys", "fn seen_keys(b: u32, j: u32) -> vec4<bool>", () => {
      const each = (r: number) => this.word("mask", `b * ${keys}u + min(j + ${r}u, ${keys - 1}u)`);
      shader.line(`let mask = vec4<bool>(${each(0)}, ${each(1)},\n  ${each(2)}, ${each(3)});`);
      const inside = `(vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>(${keys}u))`;
      shader.line(`return mask & ${inside};`);
    });
    return `seen_keys(${at})`;
  }

  /**
   * The first and the last key that each of the four queries from `b, i` on may see, as the rows of a matrix of integers:
   * what `sees` (four keys by one of the queries) and `seen_from` (one key by the four queries) look at.
   */
  range(at: string): string {
    const { shader, kernel: { queries, keys, causal, bounded } } = this;
    shader.declare("KeyRange", "\nstruct KeyRange { first: vec4<i32>, last: vec4<i32> }");
    shader.declareBlock("key_range", "fn key_range(b: u32, i: u32) -> KeyRange", () => {
      const each = (r: number) => this.word("first", `b * ${queries}u + min(i + ${r}u, ${queries - 1}u)`);
      const first = bounded ? `vec4<i32>(${each(0)}, ${each(1)},\n  ${each(2)}, ${each(3)})` : "vec4<i32>()";
      shader.line(`let first = ${first};`);
      const diagonal = `${this.offset()} + i32(i) + vec4<i32>(0, 1, 2, 3)`;
      shader.line(`let last = ${causal ? diagonal : `vec4<i32>(${keys})`};`);
      shader.line("return KeyRange(first, last);");
    });
    shader.declareBlock(
      "sees",
      "fn sees(range: KeyRange, i: u32, j: u32, r: u32) -> vec4<bool>",
      () => {
        shader.line("let keys = i32(j) + vec4<i32>(0, 1, 2, 3);");
        shader.line("var first = range.first;\nvar last = range.last;");
        shader.line(`let inside = vec4<bool>(i < ${queries}u);`);
        shader.line("return inside & (keys >= vec4<i32>(first[r])) & (keys <= vec4<i32>(last[r]));");
      },
    );
    shader.declareBlock("seen_from", "fn seen_from(range: KeyRange, j: u32, i: u32) -> vec4<bool>", () => {
      shader.line(`let inside = vec4<u32>(i, i + 1u, i + 2u, i + 3u) < vec4<u32>(${queries}u);`);
      shader.line("return inside & (vec4<i32>(i32(j)) >= range.first) & (vec4<i32>(i32(j)) <= range.last);");
    });
    return `key_range(${at})`;
  }

  /** Where vector d of a row lies, in vectors or elements. */
  #place(operand: AttentionOperand, token: string): string {
    const layout = this.kernel.layouts[this.at(operand)]!;
    const unit = this.#wide ? 4 : 1;
    const terms = [["b", layout.batch], [token, layout.token], ["head", layout.head]] as const;
    const texts = terms.filter(([, stride]) => stride !== 0).map(([name, stride]) => `${name} * ${stride / unit}u`);
    if (layout.offset > 0) texts.push(`${layout.offset / unit}u`);
    return [...texts, this.#wide ? "d" : "d * 4u"].join(" + ");
  }

  /** The vector at `at`; past the width there are zeros. */
  #vector(operand: AttentionOperand, at: string): string {
    const { shader, kernel: { width } } = this;
    const i = this.at(operand);
    if (this.#wide) return readWide(shader, i, at).text;
    const each = [0, 1, 2, 3].map((e) => {
      const index = e === 0 ? at : `${at} + ${e}u`;
      const text = readElement(shader, i, isHalfWord(shader, i) ? `(${index})` : index).text;
      return width % 4 === 0 ? text : `select(0.0, ${text}, d * 4u + ${e}u < ${width}u)`;
    });
    return `vec4<f32>(${each.join(", ")})`;
  }
}
