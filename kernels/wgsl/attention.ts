import { type AttentionKernel, type AttentionOperand, attentionOperands } from "../kernel.ts";
import { isHalfWord, readElement, readWide } from "./access.ts";
import { literal } from "./literal.ts";
import { ShaderWriter, type WgslShader } from "./shader.ts";
import type { TileConfig } from "./tile.ts";

/**
 * Attention: each invocation owns one query of one head (one key of one key/value head in backward-kv) and walks all
 * keys (queries) that it sees, with its sums in registers. No queries x keys tensor exists; neighbours read the same
 * rows, which the cache serves.
 */
export function emitAttention(kernel: AttentionKernel, tile: TileConfig, alias: readonly number[]): WgslShader {
  const { pass, batch, heads, kvHeads, queries, keys, width } = kernel;
  const writer = new AttentionWriter(kernel, tile, alias);
  const points = pass === "backward-kv" ? batch * kvHeads * keys : batch * heads * queries;
  const { shader } = writer;
  return shader.main(Math.ceil(points / tile.mapLanes), [tile.mapLanes], () => {
    shader.line(`let point = group * ${tile.mapLanes}u + lane;`);
    if (points % tile.mapLanes !== 0) shader.line(`if (point >= ${points}u) { return; }`);
    shader.line(`// rows of ${width} are read ${writer.wide ? "four elements" : "one element"} at a time`);
    if (pass === "forward") writer.forward();
    else if (pass === "backward-q") writer.backwardQ();
    else writer.backwardKv();
  });
}

class AttentionWriter {
  readonly shader: ShaderWriter;
  /** Whether rows are read four elements at a time. */
  readonly wide: boolean;
  readonly #scale: string;
  readonly #type: string;
  readonly #names: readonly AttentionOperand[];
  /** Elements, or vectors, of a row. */
  readonly #count: number;

  constructor(readonly kernel: AttentionKernel, tile: TileConfig, alias: readonly number[]) {
    const { operands, layouts, width, pass, batch, heads, kvHeads, queries, keys } = kernel;
    this.wide = width % 4 === 0 &&
      layouts.every((layout) =>
        layout === null || [layout.offset, layout.batch, layout.token, layout.head].every((n) => n % 4 === 0)
      );
    this.#names = attentionOperands(kernel);
    this.#type = this.wide ? "vec4<f32>" : "f32";
    this.#count = this.wide ? width / 4 : width;
    const narrow = new Set(operands.keys().filter((i) => !this.wide || layouts[i] === null));
    const name = `attention ${pass} [${batch},${heads}/${kvHeads},${queries},${keys},${width}]`;
    this.shader = new ShaderWriter(name, operands, alias, narrow, tile, (i) => `${this.#names[i]}_`);
    this.#scale = literal("f32", kernel.scale, this.shader.helpers);
  }

  /** One query: a running maximum, the weights' total and the weighted sum of values, four keys at a time. */
  forward(): void {
    const { shader } = this;
    const { queries, heads } = this.kernel;
    this.#query();
    this.#row("q", "q", "q_at", ` * ${this.#scale}`);
    this.#rows(["acc"]);
    shader.line("var most = -3.0e38;\nvar total = 0.0;");
    shader.block("for (var first = begin; first < end; first += 4u)", () => {
      shader.line("var s = vec4<f32>(-3.0e38);");
      shader.block("for (var c = 0u; c < 4u; c++)", () => {
        shader.line("let j = first + c;");
        shader.line(`if (j >= end || ${this.#mask("j")} == 0u) { continue; }`);
        shader.line(`let at = ${this.#place("k", "b", "j", "g")};`);
        shader.line("var sum = 0.0;");
        this.#each(() => shader.line(`sum += ${this.#inner("q[d]", this.#read("k", "at + d"))};`));
        shader.line("s[c] = sum;");
      });
      shader.line("let top = max(most, max(max(s.x, s.y), max(s.z, s.w)));");
      shader.line("let kept = exp(most - top);");
      shader.line("let p = select(vec4<f32>(), exp(s - top), s > vec4<f32>(-2.9e38));");
      shader.line("total = total * kept + (p.x + p.y + p.z + p.w);");
      shader.line("most = top;");
      this.#each(() => shader.line("acc[d] *= kept;"));
      shader.block("for (var c = 0u; c < 4u; c++)", () => {
        shader.line("if (p[c] == 0.0) { continue; }");
        shader.line(`let at = ${this.#place("v", "b", "first + c", "g")};`);
        this.#each(() => shader.line(`acc[d] += p[c] * ${this.#read("v", "at + d")};`));
      });
    });
    shader.line("let share = select(0.0, 1.0 / total, total > 0.0);");
    shader.line(`let out_at = ${this.#place("out", "b", "i", "h")};`);
    this.#each(() => this.#write("out", "out_at + d", "acc[d] * share"));
    shader.line(`let row = (b * ${heads}u + h) * ${queries}u + i;`);
    // The logarithm is of a total that is at least 1 where any key was seen.
    this.#write("lse", "row", "select(0.0, most + log(max(total, 1.0e-30)), total > 0.0)");
  }

  /** One query: dq = Σ over keys of ds·k, with ds = p·(dout·v - delta)·scale. */
  backwardQ(): void {
    const { shader } = this;
    this.#query();
    this.#row("q", "q", "q_at", ` * ${this.#scale}`);
    shader.line(`let dout_at = ${this.#place("dout", "b", "i", "h")};`);
    this.#row("dout", "dout", "dout_at", "");
    this.#rows(["acc"]);
    shader.line(`let row = (b * ${this.kernel.heads}u + h) * ${this.kernel.queries}u + i;`);
    shader.line(`let lse = ${this.#read("lse", "row", false)};`);
    shader.line(`let delta = ${this.#read("delta", "row", false)};`);
    shader.block("for (var j = begin; j < end; j++)", () => {
      shader.line(`if (${this.#mask("j")} == 0u) { continue; }`);
      shader.line(`let k_at = ${this.#place("k", "b", "j", "g")};`);
      shader.line(`let v_at = ${this.#place("v", "b", "j", "g")};`);
      shader.line("var s = 0.0;\nvar dp = 0.0;");
      this.#each(() => {
        shader.line(`s += ${this.#inner("q[d]", this.#read("k", "k_at + d"))};`);
        shader.line(`dp += ${this.#inner("dout[d]", this.#read("v", "v_at + d"))};`);
      });
      shader.line(`let ds = exp(s - lse) * (dp - delta) * ${this.#scale};`);
      this.#each(() => shader.line(`acc[d] += ds * ${this.#read("k", "k_at + d")};`));
    });
    shader.line(`let dq_at = ${this.#place("dq", "b", "i", "h")};`);
    this.#each(() => this.#write("dq", "dq_at + d", "acc[d]"));
  }

  /** One key: dk = Σ ds·q and dv = Σ p·dout over the queries, of every head of its group, that see it. */
  backwardKv(): void {
    const { shader } = this;
    const { keys, kvHeads, heads, queries, causal, bounded } = this.kernel;
    shader.line(`let j = point % ${keys}u;`);
    shader.line(`let g = point / ${keys}u % ${kvHeads}u;`);
    shader.line(`let b = point / ${keys * kvHeads}u;`);
    shader.line(`let k_at = ${this.#place("k", "b", "j", "g")};`);
    shader.line(`let v_at = ${this.#place("v", "b", "j", "g")};`);
    this.#row("k", "k", "k_at", ` * ${this.#scale}`);
    this.#row("v", "v", "v_at", "");
    this.#rows(["dk", "dv"]);
    const start = causal ? `u32(max(i32(j) - ${this.#read("offset", "0", false)}, 0))` : "0u";
    shader.line(`let start = select(${queries}u, ${start}, ${this.#mask("j")} != 0u);`);
    shader.block(`for (var h = g * ${heads / kvHeads}u; h < (g + 1u) * ${heads / kvHeads}u; h++)`, () => {
      shader.block(`for (var i = start; i < ${queries}u; i++)`, () => {
        if (bounded) shader.line(`if (i32(j) < ${this.#firstKey("i")}) { continue; }`);
        shader.line(`let q_at = ${this.#place("q", "b", "i", "h")};`);
        shader.line(`let dout_at = ${this.#place("dout", "b", "i", "h")};`);
        shader.line(`let row = (b * ${heads}u + h) * ${queries}u + i;`);
        shader.line("var s = 0.0;\nvar dp = 0.0;");
        this.#each(() => {
          shader.line(`s += ${this.#inner("k[d]", this.#read("q", "q_at + d"))};`);
          shader.line(`dp += ${this.#inner("v[d]", this.#read("dout", "dout_at + d"))};`);
        });
        shader.line(`let p = exp(s - ${this.#read("lse", "row", false)});`);
        shader.line(`let ds = p * (dp - ${this.#read("delta", "row", false)}) * ${this.#scale};`);
        this.#each(() => {
          shader.line(`dk[d] += ds * ${this.#read("q", "q_at + d")};`);
          shader.line(`dv[d] += p * ${this.#read("dout", "dout_at + d")};`);
        });
      });
    });
    shader.line(`let dk_at = ${this.#place("dk", "b", "j", "g")};`);
    shader.line(`let dv_at = ${this.#place("dv", "b", "j", "g")};`);
    this.#each(() => {
      this.#write("dk", "dk_at + d", "dk[d]");
      this.#write("dv", "dv_at + d", "dv[d]");
    });
  }

  /** Names the query (b, h, i), its key/value head g, its row q_at and the end of the keys that it may see. */
  #query(): void {
    const { shader } = this;
    const { queries, heads, kvHeads, keys, causal, bounded } = this.kernel;
    shader.line(`let i = point % ${queries}u;`);
    shader.line(`let h = point / ${queries}u % ${heads}u;`);
    shader.line(`let b = point / ${queries * heads}u;`);
    shader.line(`let g = h / ${heads / kvHeads}u;`);
    shader.line(`let q_at = ${this.#place("q", "b", "i", "h")};`);
    const end = `u32(clamp(${this.#read("offset", "0", false)} + i32(i) + 1, 0, ${keys}))`;
    shader.line(`let end = ${causal ? end : `${keys}u`};`);
    shader.line(`let begin = ${bounded ? `u32(clamp(${this.#firstKey("i")}, 0, ${keys}))` : "0u"};`);
  }

  /** Declares `name` as the row of an operand that starts at `at`. */
  #row(name: string, operand: AttentionOperand, at: string, factor: string): void {
    this.#rows([name]);
    this.#each(() => this.shader.line(`${name}[d] = ${this.#read(operand, `${at} + d`)}${factor};`));
  }

  /** Declares rows of zeros. */
  #rows(rows: readonly string[]): void {
    for (const name of rows) this.shader.line(`var ${name}: array<${this.#type}, ${this.#count}>;`);
  }

  #each(body: () => void): void {
    this.shader.block(`for (var d = 0u; d < ${this.#count}u; d++)`, body);
  }

  #inner(x: string, y: string): string {
    return this.wide ? `dot(${x}, ${y})` : `${x} * ${y}`;
  }

  /** Where a row of an operand starts, in elements or vectors. */
  #place(operand: AttentionOperand, b: string, token: string, head: string): string {
    const layout = this.kernel.layouts[this.#names.indexOf(operand)]!;
    const unit = this.wide ? 4 : 1;
    const terms = [[b, layout.batch], [token, layout.token], [head, layout.head]] as const;
    const texts = terms.filter(([, stride]) => stride !== 0).map(([name, stride]) =>
      `${name.includes(" ") ? `(${name})` : name} * ${stride / unit}u`
    );
    if (layout.offset > 0) texts.push(`${layout.offset / unit}u`);
    return texts.join(" + ") || "0u";
  }

  #read(operand: AttentionOperand, at: string, row = true): string {
    const i = this.#names.indexOf(operand);
    if (row && this.wide) return readWide(this.shader, i, at).text;
    return readElement(this.shader, i, isHalfWord(this.shader, i) ? `(${at})` : at).text;
  }

  #write(operand: AttentionOperand, at: string, value: string): void {
    this.shader.line(this.shader.write(this.#names.indexOf(operand), at, value));
  }

  #firstKey(query: string): string {
    return this.#read("first", `b * ${this.kernel.queries}u + ${query}`, false);
  }

  #mask(key: string): string {
    return this.shader.read(this.#names.indexOf("mask"), `b * ${this.kernel.keys}u + ${key}`);
  }
}
