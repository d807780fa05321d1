import type { AttentionKernel, AttentionOperand } from "../../ir/kernel.ts";
import { AttentionAccess } from "./access.ts";
import { literal } from "../literal.ts";
import { declareMultiply } from "../product/multiply.ts";
import type { Schedule } from "../schedule.ts";
import type { ShaderWriter, WgslShader } from "../shader.ts";

/** The score of a key that is not seen. */
const hidden = "-3.0e38";

/**
 * Attention in tiles, without a queries x keys tensor. A workgroup owns some rows (queries of one head; in backward-kv keys
 * of one key/value head) and walks the columns that they see (keys; queries of every head of the group). Each lane computes
 * a 4 x 4 block of scores, its row of lanes shares the weights through workgroup memory, and each lane then adds its part
 * of the width to four rows of the result, in registers. Source: Dao et al. 2022, "FlashAttention".
 */
export function emitAttention(kernel: AttentionKernel, schedule: Schedule<"attention">): WgslShader {
  const { pass, heads, kvHeads, queries, keys } = kernel;
  const writer = new AttentionWriter(kernel, schedule);
  const { shader, columns, rows } = writer;
  const [owners, tokens] = pass === "backward-kv" ? [kvHeads, keys] : [heads, queries];
  const blocks = Math.ceil(tokens / (rows * 4));
  shader.tiling = `${rows * 4} ${pass === "backward-kv" ? "keys" : "queries"} a workgroup against ${columns * 4} ` +
    `${pass === "backward-kv" ? "queries" : "keys"} at a time, 4 x 4 a lane`;
  return shader.main(() => {
    shader.line(`let row = lane / ${columns}u;\nlet column = lane % ${columns}u;`);
    shader.line(`let top = group % ${blocks}u * ${rows * 4}u;`);
    shader.line(`let own = group / ${blocks}u % ${owners}u;\nlet b = group / ${blocks * owners}u;`);
    if (pass === "forward") writer.forward();
    else if (pass === "backward-q") writer.backwardQ();
    else writer.backwardKv();
  });
}

/** Sums that a lane keeps in registers: weights in workgroup memory times rows of an operand. */
interface Sum {
  /** `o` for `o0`, `o1`, …: a block of four rows by four of the width each. */
  readonly name: string;
  readonly weights: string;
  readonly operand: AttentionOperand;
}

class AttentionWriter {
  readonly shader: ShaderWriter;
  /** Lanes that share four rows, and rows of lanes. */
  readonly columns: number;
  readonly rows: number;
  readonly #access: AttentionAccess;
  readonly #scale: string;
  /** Vectors of four that a row of the operands has, and those that each lane owns of the result. */
  readonly #vectors: number;
  readonly #owned: number;

  constructor(readonly kernel: AttentionKernel, schedule: Schedule<"attention">) {
    ({ columns: this.columns, rows: this.rows } = schedule);
    this.#access = new AttentionAccess(kernel, schedule);
    this.shader = this.#access.shader;
    this.#scale = literal("f32", kernel.scale, this.shader.helpers);
    this.#vectors = Math.ceil(kernel.width / 4);
    this.#owned = Math.ceil(this.#vectors / this.columns);
    declareMultiply(this.shader);
  }

  /** Four queries: a running maximum, the weights' total and the weighted sum of values. */
  forward(): void {
    const { shader, columns } = this;
    const sum: Sum = { name: "o", weights: "weights", operand: "v" };
    shader.declare("peaks", `\nvar<workgroup> peaks: array<vec4<f32>, ${columns * this.rows}>;`);
    this.#query();
    this.#declareSums(sum);
    shader.line(`var most = vec4<f32>(${hidden});\nvar total = vec4<f32>();`);
    this.#keyBlocks(() => {
      this.#scores("s", "q", "i", "h", "k", "j", "g");
      this.#eachRow((r) =>
        shader.line(`s[${r}] = select(vec4<f32>(${hidden}), ${this.#score(`s[${r}]`)}, ${this.#visible(r)});`)
      );
      shader.line("peaks[lane] = vec4<f32>(");
      this.#eachRow((r) =>
        shader.line(`  max(max(s[${r}].x, s[${r}].y), max(s[${r}].z, s[${r}].w))${r < 3 ? "," : ");"}`)
      );
      shader.line("workgroupBarrier();\nvar high = most;");
      shader.block(
        `for (var c = 0u; c < ${columns}u; c++)`,
        () => shader.line(`high = max(high, peaks[row * ${columns}u + c]);`),
      );
      shader.line("let kept = exp(most - high);\nmost = high;\ntotal *= kept;");
      this.#eachRow((r) => {
        const weight = `select(vec4<f32>(), exp(s[${r}] - high[${r}]), s[${r}] > vec4<f32>(-2.9e38))`;
        shader.line(`${this.#weightAt("weights", r)} = ${weight};`);
      });
      this.#owns((w) => shader.line(`o${w} = mat4x4<f32>(${rowsOf((r) => `o${w}[${r}] * kept[${r}]`)});`));
      this.#accumulate([sum], "j0", "g", () => {
        shader.line(`total += vec4<f32>(${rowsOf((r) => `dot(w[${r}], vec4<f32>(1.0))`)});`);
      });
    });
    shader.line("let share = select(vec4<f32>(), 1.0 / total, total > vec4<f32>());");
    this.#owns((w) => {
      const block = `mat4x4<f32>(${rowsOf((r) => `o${w}[${r}] * share[${r}]`)})`;
      shader.line(this.#access.storeBlock("out", "b, i, h", this.#place(w), block));
    });
    // The logarithm is of a total that is at least 1 where any key was seen.
    shader.line("let lse = select(vec4<f32>(), most + log(max(total, vec4<f32>(1.0e-30))),\n  total > vec4<f32>());");
    shader.block("if (column == 0u)", () => {
      this.#eachRow((r) => {
        const write = shader.write(this.#access.at("lse"), this.#statAt(`i + ${r}u`), `lse[${r}]`);
        shader.line(`if (i + ${r}u < ${this.kernel.queries}u) { ${write} }`);
      });
    });
  }

  /** Four queries: dq = Σ over keys of ds·k, with ds = p·(dout·v - delta)·scale. */
  backwardQ(): void {
    const { shader } = this;
    const sum: Sum = { name: "dq", weights: "weights", operand: "k" };
    this.#query();
    this.#declareSums(sum);
    shader.line(
      `let lse = ${this.#access.stats("lse", "b, h, i")};\nlet delta = ${this.#access.stats("delta", "b, h, i")};`,
    );
    this.#keyBlocks(() => {
      this.#scores("s", "q", "i", "h", "k", "j", "g");
      this.#scores("dp", "dout", "i", "h", "v", "j", "g");
      this.#eachRow((r) => {
        shader.line(`let p${r} = exp(${this.#score(`s[${r}]`, `t${r}`)} - lse[${r}]);`);
        const ds = `p${r} * (dp[${r}] - delta[${r}]) * ${this.#scale}${this.#slope(`t${r}`)}`;
        shader.line(`${this.#weightAt("weights", r)} = select(vec4<f32>(), ${ds}, ${this.#visible(r)});`);
      });
      this.#accumulate([sum], "j0", "g");
      shader.line("workgroupBarrier();");
    });
    this.#owns((w) => shader.line(this.#access.storeBlock("dq", "b, i, h", this.#place(w), `dq${w}`)));
  }

  /** Four keys: dk = Σ ds·q and dv = Σ p·dout over the queries, of every head of their group, that see them. */
  backwardKv(): void {
    const { shader, columns } = this;
    const { heads, kvHeads, queries, causal } = this.kernel;
    const ratio = heads / kvHeads;
    const sums: readonly Sum[] = [
      { name: "dk", weights: "weights", operand: "q" },
      { name: "dv", weights: "shares", operand: "dout" },
    ];
    shader.line("let g = own;\nlet j = top + row * 4u;");
    this.#uniform("start", causal ? `u32(max(i32(top) - ${this.#access.offset()}, 0)) & ~3u` : null);
    this.#declareSums(...sums);
    shader.line(`let seen = ${this.#access.seenKeys("b, j")};`);
    shader.block(`for (var h = g * ${ratio}u; h < (g + 1u) * ${ratio}u; h++)`, () => {
      shader.block(`for (var i0 = ${causal ? "start" : "0u"}; i0 < ${queries}u; i0 += ${columns * 4}u)`, () => {
        shader.line("let i = i0 + column * 4u;");
        this.#scores("s", "k", "j", "g", "q", "i", "h");
        this.#scores("dp", "v", "j", "g", "dout", "i", "h");
        shader.line(
          `let lse = ${this.#access.stats("lse", "b, h, i")};\nlet delta = ${this.#access.stats("delta", "b, h, i")};`,
        );
        shader.line(`let range = ${this.#access.range("b, i")};`);
        this.#eachRow((r) => {
          shader.line(`let sees${r} = seen_from(range, j + ${r}u, i) & vec4<bool>(seen[${r}]);`);
          const score = this.#score(`s[${r}]`, `t${r}`);
          shader.line(`let p${r} = select(vec4<f32>(), exp(${score} - lse), sees${r});`);
          shader.line(`${this.#weightAt("shares", r)} = p${r};`);
          const ds = `p${r} * (dp[${r}] - delta) * ${this.#scale}${this.#slope(`t${r}`)}`;
          shader.line(`${this.#weightAt("weights", r)} = select(vec4<f32>(), ${ds}, sees${r});`);
        });
        this.#accumulate(sums, "i0", "h");
        shader.line("workgroupBarrier();");
      });
    });
    this.#owns((w) => {
      shader.line(this.#access.storeBlock("dk", "b, j, g", this.#place(w), `dk${w}`));
      shader.line(this.#access.storeBlock("dv", "b, j, g", this.#place(w), `dv${w}`));
    });
  }

  /** Names the query (b, h, i), its key/value head g, and the range of the keys that the workgroup's queries may see. */
  #query(): void {
    const { shader, rows } = this;
    const { heads, kvHeads, queries, keys, causal, bounded } = this.kernel;
    shader.line(`let h = own;\nlet g = h / ${heads / kvHeads}u;\nlet i = top + row * 4u;`);
    const last = `min(top + ${rows * 4}u, ${queries}u)`;
    this.#uniform("end", causal ? `u32(clamp(${this.#access.offset()} + i32(${last}), 0, ${keys}))` : null);
    if (bounded) {
      shader.line("var least = 2147483647;");
      shader.block(`for (var t = top; t < ${last}; t++)`, () => {
        shader.line(`least = min(least, ${this.#access.word("first", `b * ${queries}u + t`)});`);
      });
    }
    this.#uniform("begin", bounded ? `u32(clamp(least, 0, ${keys})) & ~3u` : null);
    shader.line(`let range = ${this.#access.range("b, i")};`);
  }

  /**
   * Declares `name` as what lane 0 finds: a value that all lanes of a workgroup provably share, as loops around barriers
   * demand of their bounds. Nothing where there is nothing to find.
   */
  #uniform(name: string, value: string | null): void {
    if (value === null) return;
    this.shader.declare(name, `\nvar<workgroup> shared_${name}: u32;`);
    this.shader.line(`if (lane == 0u) { shared_${name} = ${value}; }`);
    this.shader.line(`let ${name} = workgroupUniformLoad(&shared_${name});`);
  }

  /** Walks the keys, `columns` blocks of four at a time, of which the lane has the one at j. */
  #keyBlocks(body: () => void): void {
    const { keys, causal, bounded } = this.kernel;
    const [begin, end] = [bounded ? "begin" : "0u", causal ? "end" : `${keys}u`];
    this.shader.block(`for (var j0 = ${begin}; j0 < ${end}; j0 += ${this.columns * 4}u)`, () => {
      this.shader.line(`let j = j0 + column * 4u;\nlet seen = ${this.#access.seenKeys("b, j")};`);
      body();
    });
  }

  /** Scores of products; where there is a cap, the tanh that bends them may be given a name. */
  #score(products: string, name?: string): string {
    const { shader, kernel: { scale, cap } } = this;
    if (cap === undefined) return `${products} * ${this.#scale}`;
    const [share, bound] = [scale / cap, cap].map((x) => literal("f32", x, shader.helpers));
    const bent = `${shader.helpers.use("tanh_exact", 4)}(${products} * ${share})`;
    if (name !== undefined) shader.line(`let ${name} = ${bent};`);
    return `${name ?? bent} * ${bound}`;
  }

  /** A factor of a score's gradient: the slope of the bend of that name. */
  #slope(bent: string): string {
    return this.kernel.cap === undefined ? "" : ` * (1.0 - ${bent} * ${bent})`;
  }

  /** Which of the four keys at j the query i + r sees. */
  #visible(r: number): string {
    return `seen & sees(range, i + ${r}u, j, ${r}u)`;
  }

  /** Declares `name`: four rows of x times four rows of y. */
  #scores(
    name: string,
    x: AttentionOperand,
    xAt: string,
    xHead: string,
    y: AttentionOperand,
    yAt: string,
    yHead: string,
  ) {
    const { shader } = this;
    shader.line(`var ${name} = mat4x4<f32>();`);
    shader.block(rolled("d", this.#vectors), () => {
      const [p, q] = [this.#access.block(x, `b, ${xAt}, ${xHead}, d`), this.#access.block(y, `b, ${yAt}, ${yHead}, d`)];
      shader.line(`${name} = multiply(${name}, ${p}, transpose(${q}));`);
    });
  }

  /** After a barrier, adds the weights of all columns times the operands' rows from `first` on to the sums. */
  #accumulate(sums: readonly Sum[], first: string, head: string, also: () => void = () => {}): void {
    const { shader, columns } = this;
    shader.line("workgroupBarrier();");
    shader.block(rolled("c", columns), () => {
      sums.forEach(({ name, weights, operand }, i) => {
        const w = i === 0 ? "w" : "w1";
        const at = (r: number) => `${weights}[(row * 4u + ${r}u) * ${columns}u + c]`;
        shader.line(`let ${w} = mat4x4<f32>(${rowsOf(at)});`);
        this.#owns((own) => {
          const rows = this.#access.block(operand, `b, ${first} + c * 4u, ${head}, ${this.#place(own)}`);
          shader.line(`${name}${own} = multiply(${name}${own}, ${w}, ${rows});`);
        });
      });
      also();
    });
  }

  #declareSums(...sums: readonly Sum[]): void {
    const { shader, columns, rows } = this;
    for (const { name, weights } of sums) {
      shader.declare(weights, `\nvar<workgroup> ${weights}: array<vec4<f32>, ${rows * 4 * columns}>;`);
      this.#owns((w) => shader.line(`var ${name}${w} = mat4x4<f32>();`));
    }
  }

  #weightAt(weights: string, r: number): string {
    return `${weights}[(row * 4u + ${r}u) * ${this.columns}u + column]`;
  }

  #statAt(i: string): string {
    const { heads, queries } = this.kernel;
    return `(b * ${heads}u + h) * ${queries}u + ${i}`;
  }

  /** The vector of the width that is number w of the lane's own. */
  #place(w: number): string {
    return w === 0 ? "column" : `column + ${w * this.columns}u`;
  }

  #owns(body: (w: number) => void): void {
    for (let w = 0; w < this.#owned; w++) body(w);
  }

  #eachRow(body: (r: number) => void): void {
    for (let r = 0; r < 4; r++) body(r);
  }
}

/** One text for each of four rows, as arguments. */
function rowsOf(text: (r: number) => string): string {
  return [0, 1, 2, 3].map(text).join(", ");
}

/** A loop that compilers leave one: `at.z` is 0, which they can't see. Unrolled, these take long to compile and run slower. */
function rolled(name: string, count: number): string {
  return `for (var ${name} = 0u; ${name} < ${count}u + at.z; ${name}++)`;
}
