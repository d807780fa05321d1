/** The pieces that the three passes of attention are put together from. */
import { byteSize } from "../../../core/dtype.ts";
import { type AttentionKernel, type AttentionOperand, attentionOperands, type HeadLayout } from "../../ir/kernel.ts";
import type { Code, Local } from "../assembler.ts";
import { MaskRanges } from "./mask_ranges.ts";
import type { EmittedKernel, KernelFrame } from "../frame.ts";
import { emitStraightPanels, emitTurnedPanels, panelWidth } from "./panels.ts";
import { emitDotTile, emitTile } from "../gemm/tile.ts";
import { MathEmitter } from "../math.ts";
import type { PlainOpcode } from "../opcodes.ts";
import type { Schedule } from "../schedule.ts";

/** Rows and columns of the register tiles. */
const dotRows = 2, dotColumns = 4, sumRows = 4, sumVectors = panelWidth / 4;

/** Emits one pass: blocks of rows (queries or keys) against columns (keys or queries). */
export class AttentionBlocks {
  readonly kernel: AttentionKernel;
  readonly schedule: Schedule<"attention">;
  readonly code: Code;
  readonly math: MathEmitter;
  readonly ranges: MaskRanges;
  readonly #block: number;
  /** Bytes of a row of scores, and of a row of sums; both have room for whole vectors. */
  readonly #scoreRow: number;
  readonly #sumRow: number;
  readonly #functions: Code[] = [];
  readonly #known = new Map<string, number>();
  readonly #names: readonly AttentionOperand[];
  /** Scratch for the other side's panels, where they are packed. */
  readonly #turned: Local | null = null;
  readonly #straight: Local | null = null;
  readonly #straightNext: number;
  #scratchBytes = 0;

  constructor(readonly frame: KernelFrame<"attention">) {
    const { kernel, schedule, code, options } = frame, { columns, block, packed } = schedule;
    if (kernel.operands.some((o, i) => kernel.layouts[i] && o.dtype !== "f32")) {
      throw new Error("attention reads and writes f32: convert its operands first");
    }
    this.#names = attentionOperands(kernel);
    [this.kernel, this.schedule, this.code] = [kernel, schedule, code];
    this.math = new MathEmitter(code, options.relaxed);
    for (const [name, start] of Object.entries(kernel.starts ?? {})) {
      const pointer = this.#pointer(name as AttentionOperand);
      this.code.get(pointer).i32(4 * start).op("i32.add").set(pointer);
    }
    this.ranges = new MaskRanges(this.code, kernel, (name) => this.#pointer(name));
    this.#block = block;
    this.#scoreRow = (Math.ceil(columns / panelWidth) * panelWidth + 4) * 4;
    this.#sumRow = Math.ceil(kernel.width / panelWidth) * 4 * panelWidth;
    // A line more than a panel needs: panels whose rows fall on the same cache sets would push each other out.
    this.#straightNext = columns * 4 * panelWidth + 64;
    if (packed) {
      const panels = Math.ceil(kernel.width / panelWidth);
      this.#turned = this.#reserve(Math.ceil(columns / panelWidth) * panelWidth * kernel.width * 4);
      this.#straight = this.#reserve(panels * this.#straightNext);
    }
  }

  finish(): EmittedKernel {
    this.#functions.push(this.code);
    return this.frame.finish(this.#scratchBytes, this.#functions);
  }

  /** Scratch for a block of scores. */
  scores(): Local {
    return this.#reserve(this.#block * this.#scoreRow);
  }

  /** Scratch for a block of sums over the width. */
  sums(): Local {
    return this.#reserve(this.#block * this.#sumRow);
  }

  /** Scratch for one number a row, laid out so that {@link eachRow} can walk it. */
  factors(): Local {
    return this.scores();
  }

  #reserve(bytes: number): Local {
    const local = this.code.local("i32");
    this.code.get(this.frame.scratch).i32(this.#scratchBytes).op("i32.add").set(local);
    this.#scratchBytes += Math.ceil(bytes / 64) * 64;
    return local;
  }

  /** Calls `body` for every unit: batch entry, head, and rows [first, last). */
  eachBlock(heads: number, body: (b: Local, h: Local, first: Local, last: Local) => void): void {
    const { code, frame } = this;
    const last = code.local("i32");
    frame.eachUnit(() => {
      const blocks = Math.ceil(this.schedule.rows / this.#block);
      const [b, h, first] = frame.unflatten(frame.unit, [this.kernel.batch, heads, blocks]);
      code.get(first).i32(this.#block).op("i32.mul").tee(first).i32(this.#block).op("i32.add").set(last);
      code.limit(last, { constant: this.schedule.rows });
      body(b, h, first, last);
    });
  }

  /** The address of an operand. */
  #pointer(name: AttentionOperand): Local {
    return this.frame.pointers[this.#names.indexOf(name)];
  }

  #layout(name: AttentionOperand): HeadLayout {
    return this.kernel.layouts[this.#names.indexOf(name)]!;
  }

  /** The key/value head of query head `h`. */
  keyHead(h: Local): Local {
    const local = this.code.local("i32");
    this.code.get(h).i32(this.kernel.heads / this.kernel.kvHeads).op("i32.div_u").set(local);
    return local;
  }

  /** Pushes the four scores of the products at `at`. Returns the tanh that bends them, to be released, where there is a cap. */
  pushScores(at: Local): Local | null {
    const { code, kernel: { scale, cap } } = this;
    code.get(at).memory("v128.load");
    if (cap === undefined) {
      code.f32x4(scale).op("f32x4.mul");
      return null;
    }
    const bent = code.local("v128");
    code.f32x4(scale / cap).op("f32x4.mul");
    this.math.tanh();
    code.tee(bent).f32x4(cap).op("f32x4.mul");
    return bent;
  }

  /** Pushes exp((score at `at`) - level), 0 where not visible. Returns what {@link pushScores} does. */
  pushWeight(at: Local, level: () => void, visible: () => void): Local | null {
    const { code } = this;
    const bent = this.pushScores(at);
    level();
    code.op("f32x4.sub");
    this.math.exp();
    visible();
    code.op("v128.and");
    return bent;
  }

  /** With a weight on the stack: weight·(slope - mean)·scale, times the bend's slope, 0 where the weight is 0. */
  pushScoreGradient(slope: Local, mean: () => void, bent: Local | null): void {
    const { code } = this;
    const weight = code.local("v128");
    code.tee(weight).get(slope).memory("v128.load");
    mean();
    code.op("f32x4.sub", "f32x4.mul").f32x4(this.kernel.scale).op("f32x4.mul");
    if (bent !== null) {
      code.f32x4(1).get(bent).get(bent).op("f32x4.mul", "f32x4.sub", "f32x4.mul");
      code.release("v128", bent);
    }
    code.get(weight).f32x4(0).op("f32x4.ne", "v128.and");
    code.release("v128", weight);
  }

  /** The address of row [b, token, h] of an operand. */
  row(operand: AttentionOperand, b: Local, token: Local, h: Local): Local {
    const { code } = this;
    const layout = this.#layout(operand);
    const local = code.local("i32");
    code.get(this.#pointer(operand)).i32(layout.offset * 4).op("i32.add");
    code.get(b).i32(layout.batch * 4).op("i32.mul", "i32.add");
    code.get(token).i32(layout.token * 4).op("i32.mul", "i32.add");
    code.get(h).i32(layout.head * 4).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** The address of element [b, h, i] of a statistic. */
  statistic(operand: AttentionOperand, b: Local, h: Local, i: Local): Local {
    const { code } = this, { heads, queries } = this.kernel;
    const local = code.local("i32");
    code.get(b).i32(heads).op("i32.mul").get(h).op("i32.add").i32(queries).op("i32.mul");
    code.get(i).op("i32.add").i32(4).op("i32.mul").get(this.#pointer(operand)).op("i32.add").set(local);
    return local;
  }

  /** scores[row - first][c] = left[row]·right[c] for rows [first, last) and c below `count`. */
  products(
    left: Local,
    leftOperand: AttentionOperand,
    first: Local,
    last: Local,
    right: Local,
    rightOperand: AttentionOperand,
    count: Local,
    scores: Local,
  ): void {
    const { code } = this, { width } = this.kernel;
    const leftRow = this.#layout(leftOperand).token * 4, rightRow = this.#layout(rightOperand).token * 4;
    if (this.#turned !== null) {
      emitTurnedPanels(code, right, rightRow, count, width, this.#turned);
      return this.#panelProducts(left, leftRow, first, last, this.#turned, count, scores);
    }
    const [row, leftAt, rightAt, c, to, line] = Array.from({ length: 6 }, () => code.local("i32"));
    code.get(first).set(row).get(left).set(leftAt).get(scores).set(line);
    for (const rows of [dotRows, 1]) {
      code.loopUpTo(row, last, rows, () => {
        code.i32(0).set(c).get(right).set(rightAt).get(line).set(to);
        for (const columns of [dotColumns, 1]) {
          const tile = this.#function(`dot ${rows}x${columns} ${leftRow} ${rightRow}`, () =>
            emitDotTile({
              rows,
              vectors: 1,
              resultRow: this.#scoreRow,
              adds: false,
              relaxed: this.math.relaxed,
              segments: [{ splatRow: leftRow, splatStep: 4, panelType: "f32", panelStep: rightRow }],
            }, columns));
          code.loopUpTo(c, count, columns, () => {
            code.get(to).i32(0).get(leftAt).get(rightAt).i32(width).call(tile);
            code.get(rightAt).i32(columns * rightRow).op("i32.add").set(rightAt);
            code.get(to).i32(columns * 4).op("i32.add").set(to);
          });
        }
        code.get(leftAt).i32(rows * leftRow).op("i32.add").set(leftAt);
        code.get(line).i32(rows * this.#scoreRow).op("i32.add").set(line);
      });
    }
    code.release("i32", row, leftAt, rightAt, c, to, line);
  }

  /** The same with the right side packed: its panels of eight rows lie one after the other. */
  #panelProducts(
    left: Local,
    leftRow: number,
    first: Local,
    last: Local,
    panels: Local,
    count: Local,
    scores: Local,
  ): void {
    const { code } = this, { width } = this.kernel;
    const [row, leftAt, rightAt, c, to, line] = Array.from({ length: 6 }, () => code.local("i32"));
    code.get(first).set(row).get(left).set(leftAt).get(scores).set(line);
    for (const rows of [sumRows, 1]) {
      const tile = this.#function(`panel ${rows} ${leftRow}`, () =>
        emitTile({
          rows,
          vectors: sumVectors,
          resultRow: this.#scoreRow,
          adds: false,
          relaxed: this.math.relaxed,
          segments: [{ splatRow: leftRow, splatStep: 4, panelType: "f32", panelStep: 4 * panelWidth }],
        }));
      code.loopUpTo(row, last, rows, () => {
        code.i32(0).set(c).get(panels).set(rightAt).get(line).set(to);
        code.loopUpTo(c, count, 1, () => {
          code.get(to).i32(0).get(leftAt).get(rightAt).i32(width).call(tile);
          code.get(rightAt).i32(4 * panelWidth * width).op("i32.add").set(rightAt);
          code.get(to).i32(4 * panelWidth).op("i32.add").set(to);
        }, panelWidth);
        code.get(leftAt).i32(rows * leftRow).op("i32.add").set(leftAt);
        code.get(line).i32(rows * this.#scoreRow).op("i32.add").set(line);
      });
    }
    code.release("i32", row, leftAt, rightAt, c, to, line);
  }

  /** sums[row - first] = Σ scores[row - first][c]·values[c] over c below `count`; added on where `add` is not 0. */
  combine(
    scores: Local,
    first: Local,
    last: Local,
    count: Local,
    values: Local,
    operand: AttentionOperand,
    sums: Local,
    add: Local | null,
  ): void {
    const { code } = this;
    const inPlaceRow = this.#layout(operand).token * 4;
    const packed = this.#straight;
    if (packed !== null) {
      emitStraightPanels(code, values, inPlaceRow, count, this.kernel.width, packed, this.#straightNext);
    }
    // From one row of values to the next, and from eight columns to the next.
    const [base, valueRow, next] = packed === null
      ? [values, inPlaceRow, 4 * panelWidth]
      : [packed, 4 * panelWidth, this.#straightNext];
    const [row, from, to, column, panel] = Array.from({ length: 5 }, () => code.local("i32"));
    code.get(first).set(row).get(scores).set(from).get(sums).set(to);
    for (const rows of [sumRows, 1]) {
      const tile = this.#function(`sum ${rows} ${valueRow}`, () =>
        emitTile({
          rows,
          vectors: sumVectors,
          resultRow: this.#sumRow,
          adds: true,
          relaxed: this.math.relaxed,
          segments: [{ splatRow: this.#scoreRow, splatStep: 4, panelType: "f32", panelStep: valueRow }],
        }));
      code.loopUpTo(row, last, rows, () => {
        code.i32(0).set(column).get(base).set(panel);
        // The last panel may reach past the width: its lanes are kept in the sums but never written out.
        code.loopUpTo(column, { constant: this.#sumRow }, 16 * sumVectors, () => {
          code.get(to).get(column).op("i32.add");
          if (add === null) code.i32(0);
          else code.get(add);
          code.get(from).get(panel).get(count).call(tile);
          code.get(panel).i32(next).op("i32.add").set(panel);
        });
        code.get(from).i32(rows * this.#scoreRow).op("i32.add").set(from);
        code.get(to).i32(rows * this.#sumRow).op("i32.add").set(to);
      });
    }
    code.release("i32", row, from, to, column, panel);
  }

  /** Calls `body` for each row with its row of scores and the same row of a second block of scratch. */
  eachRow(
    first: Local,
    last: Local,
    scores: Local,
    body: (row: Local, line: Local, other: Local) => void,
    second: Local,
  ): void {
    const { code } = this;
    const row = code.local("i32"), line = code.local("i32"), other = code.local("i32");
    code.get(first).set(row).get(scores).set(line).get(second).set(other);
    code.loopUpTo(row, last, 1, () => {
      body(row, line, other);
      code.get(line).i32(this.#scoreRow).op("i32.add").set(line);
      code.get(other).i32(this.#scoreRow).op("i32.add").set(other);
    });
  }

  /** Calls `body` for each four columns below `count` (the last may reach past it) of the row of scores at `line`. */
  eachLane(count: Local, line: Local, body: (at: Local, c: Local) => void): void {
    const { code } = this;
    const at = code.local("i32"), c = code.local("i32");
    code.get(line).set(at).i32(0).set(c);
    code.loopUpTo(c, count, 1, () => {
      body(at, c);
      code.get(at).i32(16).op("i32.add").set(at);
    }, 4);
    code.release("i32", at, c);
  }

  /** The address of column `c` in the row at `line`. */
  sameCell(line: Local, c: Local): Local {
    const { code } = this;
    const local = code.local("i32");
    code.get(line).get(c).i32(4).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** Writes rows of sums to an operand, each multiplied by its row's factor if there are any. */
  writeRows(
    sums: Local,
    operand: AttentionOperand,
    b: Local,
    first: Local,
    last: Local,
    h: Local,
    factors: Local | null,
  ): void {
    const { code } = this, { width } = this.kernel;
    const to = this.row(operand, b, first, h);
    const [row, from, at, factorAt, c] = Array.from({ length: 5 }, () => code.local("i32"));
    const factor = code.local("v128");
    code.get(first).set(row).get(sums).set(from).get(factors ?? sums).set(factorAt);
    code.loopUpTo(row, last, 1, () => {
      if (factors !== null) code.get(factorAt).memory("v128.load32_splat").set(factor);
      code.i32(0).set(c);
      for (const lanes of [4, 1] as const) {
        code.loopUpTo(c, { constant: width }, lanes, () => {
          code.get(to).get(c).i32(4).op("i32.mul").tee(at).op("i32.add");
          code.get(from).get(at).op("i32.add").memory(lanes === 4 ? "v128.load" : "v128.load32_zero");
          if (factors !== null) code.get(factor).op("f32x4.mul");
          if (lanes === 4) code.memory("v128.store");
          else code.laneMemory("v128.store32_lane", 0);
        });
      }
      code.get(to).i32(this.#layout(operand).token * byteSize.f32).op("i32.add").set(to);
      code.get(from).i32(this.#sumRow).op("i32.add").set(from);
      code.get(factorAt).i32(this.#scoreRow).op("i32.add").set(factorAt);
    });
    code.release("i32", row, from, at, factorAt, c);
    code.release("v128", factor);
  }

  /** Combines the lanes of `local` and leaves the result in each. */
  acrossLanes(local: Local, combine: PlainOpcode): void {
    const { code } = this;
    code.get(local).get(local).get(local).shuffle(2, 3, 0, 1).op(combine).set(local);
    code.get(local).get(local).get(local).shuffle(1, 0, 3, 2).op(combine).set(local);
  }

  #function(key: string, emit: () => Code): number {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    this.#functions.push(emit());
    this.#known.set(key, this.#functions.length - 1);
    return this.#functions.length - 1;
  }
}
