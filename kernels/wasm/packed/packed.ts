/** Packed words to f32 in registers: the one reader behind every loader of packed weights. */
import {
  codeTables,
  type PackedFormat,
  packedFormats,
  type PackedLayout,
  packedLayout,
  type PackedType,
} from "../../../core/packed/blocks.ts";
import type { Code, Local } from "../assembler.ts";
import { emitTableCodes } from "./table.ts";

/** The words of the two upper bits of 6-bit codes, and the shift at which those of a run begin. */
interface UpperBits {
  readonly words: Local;
  readonly from: Local;
}

/** Code for one packed operand: what scales runs of 32 values, and what their codes stand for. */
export class PackedReader {
  readonly format: PackedFormat;
  readonly #layout: PackedLayout;
  /** What the values of the current group are multiplied by and, if the format is shifted, what is then added. */
  readonly scale: Local;
  readonly shift: Local;
  readonly #word: Local;

  /** `size` is that of the whole operand, in values. */
  constructor(
    readonly code: Code,
    readonly type: PackedType,
    readonly size: number,
    readonly pointer: Local,
    readonly relaxed: boolean,
  ) {
    this.format = packedFormats[type];
    this.#layout = packedLayout(type, size);
    this.scale = code.local("v128");
    this.shift = code.local("v128");
    this.#word = code.local("v128");
  }

  /** Bytes of the codes of a run, without the upper bits of 6-bit ones. */
  get runBytes(): number {
    return this.format.bits === 8 ? 32 : 16;
  }

  /** Groups of values in a run that have a scale each. */
  get groups(): number {
    return 32 / this.format.group;
  }

  release(): void {
    this.code.release("v128", this.scale, this.shift, this.#word);
  }

  /**
   * Computes scale and shift of group `group` (0 or 1) of run `run`, for four rows where `step` says how many runs apart they are: row
   * l in lane l. Rows past `last` are taken to be that one. Without a group it is what the scales of a run's groups share.
   */
  scales(run: Local, group: number | { readonly at: Local } | null, step: number | null = null, last = 3): void {
    const { code } = this, { scales, supers, map } = this.#layout;
    const fetch = (bytes: 1 | 2 | 4, at: number, shift: number, per = 1, more = 0, within: Local | null = null) => {
      // Neighbours that lie side by side are one load.
      if (step === 1 && last === 3 && bytes > 1 && shift === 0 && per === 1) {
        code.get(this.pointer).get(run).i32(Math.log2(bytes)).op("i32.shl", "i32.add");
        return code.memory(bytes === 4 ? "v128.load" : "v128.load16x4_u", at * 4);
      }
      for (let lane = 0; lane < (step === null ? 1 : 4); lane++) {
        code.get(this.pointer).get(run);
        const offset = (step ?? 0) * Math.min(lane, last);
        if (offset !== 0) code.i32(offset).op("i32.add");
        if (shift > 0) code.i32(shift).op("i32.shr_u");
        if (per > 1) code.i32(per).op("i32.mul");
        if (within !== null) code.get(within).op("i32.add");
        if (bytes > 1) code.i32(Math.log2(bytes)).op("i32.shl");
        code.op("i32.add").memory(loads[bytes], at * 4 + more * bytes);
        if (lane === 0) code.op("i32x4.splat");
        else code.lane("i32x4.replace_lane", lane);
      }
    };
    const toFloat = () => code.op("f32x4.convert_i32x4_s");
    switch (this.type) {
      case "q4_0":
      case "q8_0":
        fetch(2, scales, 0);
        this.#half();
        break;
      case "q4_1":
        fetch(4, scales, 0);
        code.tee(this.#word);
        this.#upperHalf();
        code.set(this.shift).get(this.#word);
        this.#half();
        break;
      case "q4_k": {
        const bytes = code.local("v128");
        fetch(2, scales, 0);
        code.set(bytes);
        fetch(4, supers, 3);
        code.tee(this.#word);
        this.#upperHalf();
        code.get(bytes).i32(8).op("i32x4.shr_u");
        toFloat();
        code.op("f32x4.mul", "f32x4.neg").set(this.shift).get(this.#word);
        this.#half();
        code.get(bytes).i32x4(...four(0xff)).op("v128.and");
        toFloat();
        code.op("f32x4.mul");
        code.release("v128", bytes);
        break;
      }
      case "q6_k":
        fetch(2, supers, 3);
        this.#half();
        if (group === null) break;
        if (typeof group === "number") fetch(1, scales, 0, 2, group);
        else fetch(1, scales, 0, 2, 0, group.at);
        code.i32(24).op("i32x4.shl").i32(24).op("i32x4.shr_s");
        toFloat();
        code.op("f32x4.mul");
        break;
      case "nf4_f32":
      case "fp4_f32":
        fetch(4, scales, 1);
        break;
      case "nf4": {
        const index = code.local("v128");
        fetch(1, scales, 1);
        code.set(index);
        for (let lane = 0; lane < (step === null ? 1 : 4); lane++) {
          code.get(this.pointer).get(index).lane("i32x4.extract_lane", lane).i32(4).op("i32.mul", "i32.add");
          code.memory("i32.load", map * 4);
          if (lane === 0) code.op("i32x4.splat");
          else code.lane("i32x4.replace_lane", lane);
        }
        fetch(4, supers, 9);
        code.op("f32x4.mul").get(this.pointer).memory("v128.load32_splat", (map + 256) * 4).op("f32x4.add");
        code.release("v128", index);
        break;
      }
    }
    code.set(this.scale);
  }

  /** Turns the f16 in the lower halves of the lanes on the stack, which are finite, into f32. */
  #half(): void {
    this.code.i32(16).op("i32x4.shl");
    this.#upperHalf();
  }

  /** The same of the upper halves: the sign stays where it is, exponent and mantissa move to an f32's places. */
  #upperHalf(): void {
    this.code.i32(3).op("i32x4.shr_s").i32x4(...four(0x8fffe000 | 0)).op("v128.and").f32x4(2 ** 112).op("f32x4.mul");
  }

  /**
   * Calls `visit(j)` with the numbers that the codes of one vector of words stand for on the stack, unscaled, for each of its
   * shifts (or the first `most` of them): lane l is the code at shift j of word l.
   */
  codes(words: Local, visit: (j: number) => void, high?: UpperBits, most = this.format.bits === 8 ? 4 : 8): void {
    if (this.format.code === "table") {
      return emitTableCodes(this.code, codeTables[this.type]!, words, visit, most);
    }
    for (let j = 0; j < most; j++) {
      this.number(words, j, high);
      visit(j);
    }
  }

  /** Pushes the numbers of the codes at shift `j` of one vector of words, for formats without a table. */
  number(words: Local, j: number, high?: UpperBits): void {
    const { code, format } = this;
    code.get(words);
    if (format.code === "signed") {
      if (j < 3) code.i32(24 - 8 * j).op("i32x4.shl");
      code.i32(24).op("i32x4.shr_s");
    } else {
      if (j > 0) code.i32(4 * j).op("i32x4.shr_u");
      if (j < 7) code.i32x4(...four(15)).op("v128.and");
      if (high) {
        code.get(high.words).get(high.from).i32(2 * j).op("i32.add", "i32x4.shr_u");
        code.i32x4(...four(3)).op("v128.and").i32(4).op("i32x4.shl", "v128.or");
      }
      this.#minus(0);
    }
    code.op("f32x4.convert_i32x4_s");
  }

  /**
   * The same for 4-bit codes, times 16 to the power of `j & 3`: one operation less than moving them to their place. To be
   * called for every j in order; `words` is shifted on the way.
   */
  placedNumber(words: Local, j: number): void {
    const { code } = this, shift = 4 * (j & 3);
    code.get(words);
    if (j === 4) code.i32(16).op("i32x4.shr_u").tee(words);
    code.i32x4(...four(15 << shift)).op("v128.and");
    this.#minus(shift);
    code.op("f32x4.convert_i32x4_s");
  }

  /** Takes from the codes on the stack, which lie `shift` bits higher, what the format takes from every code. */
  #minus(shift: number): void {
    const { code, format } = this;
    if (typeof format.code !== "object" || format.code.minus === 0) return;
    code.i32x4(...four(format.code.minus << shift)).op("i32x4.sub");
  }

  /** Scales what is on the stack. */
  finish(): void {
    const { code } = this;
    code.get(this.scale);
    if (!this.format.shifted) code.op("f32x4.mul");
    else if (this.relaxed) code.get(this.shift).op("f32x4.relaxed_madd");
    else code.op("f32x4.mul").get(this.shift).op("f32x4.add");
  }

  /**
   * The values of run `run`: `visit(i)` is called with values i … i + 3 of it on the stack, for each i that is a multiple of
   * 4, in any order. With `flush` they are not scaled; it is called after each group, with the scale and shift to use.
   */
  run(run: Local, visit: (i: number) => void, flush?: () => void): void {
    const { code } = this, words = code.local("v128"), at = code.local("i32");
    code.get(this.pointer).get(run).i32(this.runBytes).op("i32.mul", "i32.add").set(at);
    const high = this.#high(() => code.get(this.#highAddress(run)).memory("v128.load", this.#layout.high * 4), run);
    if (this.groups === 1) this.scales(run, 0);
    for (let part = 0; part < this.runBytes / 16; part++) {
      code.get(at).memory("v128.load", 16 * part).set(words);
      this.codes(words, (j) => {
        const i = 16 * part + 4 * j, { group } = this.format;
        if (this.groups > 1 && i % group === 0) this.#between(() => this.scales(run, i / group));
        if (!flush) this.finish();
        visit(i);
        if (this.groups > 1 && (i + 4) % group === 0) flush?.();
      }, high);
    }
    if (this.groups === 1) flush?.();
    code.release("v128", words, ...(high ? [high.words] : []));
    code.release("i32", at, ...(high ? [high.from] : []));
  }

  /** A local with the address of the codes of run `run`. */
  #codesAt(run: Local): Local {
    const at = this.code.local("i32");
    this.code.get(this.pointer).get(run).i32(this.runBytes).op("i32.mul", "i32.add").set(at);
    return at;
  }

  /** Pushes vector `part` of the words of the run `more` after `run`. */
  words(run: Local, more: number, part: number): void {
    const at = this.#codesAt(run);
    this.code.get(at).memory("v128.load", more * this.runBytes + 16 * part);
    this.code.release("i32", at);
  }

  /** Pushes the words of the upper bits of the run `more` after `run`, an even one: odd runs have the upper halves. */
  highWords(run: Local, more: number): void {
    const at = this.#highAddress(run);
    this.code.get(at).memory("v128.load", this.#layout.high * 4 + 16 * (more >> 1));
    this.code.release("i32", at);
  }

  /** Pushes the 8-bit scales of both groups of the run `more` after `run`, in turns, as 16-bit lanes. */
  groupScales(run: Local, more: number): void {
    this.code.get(this.pointer).get(run).i32(1).op("i32.shl", "i32.add");
    this.code.memory("v128.load16_splat", this.#layout.scales * 4 + 2 * more).op("i16x8.extend_low_i8x16_s");
  }

  /** Pushes signed 8-bit codes, those of bytes 8·part … 8·part + 7 of the run `more` after `run`, as 16-bit lanes. */
  widened(run: Local, more: number, part: number): void {
    const at = this.#codesAt(run);
    this.code.get(at).memory("v128.load8x8_s", more * this.runBytes + 8 * part);
    this.code.release("i32", at);
  }

  /**
   * A run of four rows that lie `step` runs apart: `visit(i)` is called with value i of row l in lane l. Rows past
   * `last` are taken to be that one.
   */
  rows(run: Local, step: number, last: number, visit: (i: number) => void): void {
    const { code } = this, words = code.local("v128"), at = code.local("i32");
    code.get(this.pointer).get(run).i32(this.runBytes).op("i32.mul", "i32.add").set(at);
    const rowOffset = (lane: number) => step * this.runBytes * Math.min(lane, last);
    const groups = Array.from({ length: this.groups }, () => [code.local("v128"), code.local("v128")]);
    groups.forEach(([scale], group) => {
      this.scales(run, group, step, last);
      if (groups.length > 1) code.get(this.scale).set(scale);
    });
    for (let word = 0; word < this.runBytes / 4; word++) {
      for (let lane = 0; lane < 4; lane++) {
        code.get(at);
        if (lane === 0) code.memory("v128.load32_zero", 4 * word);
        else code.get(words).laneMemory("v128.load32_lane", lane, rowOffset(lane) + 4 * word);
        code.set(words);
      }
      const high = this.#high(() => {
        for (let lane = 0; lane < 4; lane++) {
          // Rows are whole blocks, so their upper bits are as far apart as their runs.
          const offset = this.#layout.high * 4 + step * 8 * Math.min(lane, last) + 4 * word;
          code.get(this.#highAddress(run));
          if (lane === 0) code.memory("v128.load32_zero", offset);
          else code.get(this.#word).laneMemory("v128.load32_lane", lane, offset);
          if (lane < 3) code.set(this.#word);
        }
      }, run);
      this.codes(words, (j) => {
        const i = (word >> 2) * 16 + 4 * j + (word & 3);
        if (groups.length > 1) {
          this.#between(() => code.get(groups[Math.floor(i / this.format.group)][0]).set(this.scale));
        }
        this.finish();
        visit(i);
      }, high);
      if (high) {
        code.release("v128", high.words);
        code.release("i32", high.from);
      }
    }
    code.release("v128", words, ...groups.flat());
    code.release("i32", at);
  }

  /** Pushes the value at place `i`, in every lane. */
  element(i: Local): void {
    const { code, format } = this, words = code.local("v128");
    const [run, at, shift, group] = Array.from({ length: 4 }, () => code.local("i32"));
    code.get(i).i32(5).op("i32.shr_u").set(run);
    // 8-bit codes: half runs of 16, bytes; others: runs of 32, nibbles.
    const bits = format.bits === 8 ? 3 : 2, span = format.bits === 8 ? 4 : 5;
    const shiftIn = (size: number) => code.get(i).i32(2 ** size - 1).op("i32.and").i32(2).op("i32.shr_u");
    code.get(this.pointer).get(i).i32(span).op("i32.shr_u").i32(16).op("i32.mul", "i32.add");
    code.get(i).i32(3).op("i32.and").i32(4).op("i32.mul", "i32.add").set(at);
    shiftIn(span).i32(bits).op("i32.shl").set(shift);
    code.get(at).memory("i32.load").get(shift).op("i32.shr_u");
    code.op("i32x4.splat").set(words);
    let high: UpperBits | undefined;
    if (format.bits === 6) {
      high = { words: code.local("v128"), from: code.local("i32") };
      code.get(this.pointer).get(i).i32(6).op("i32.shr_u").i32(16).op("i32.mul", "i32.add");
      code.get(i).i32(3).op("i32.and").i32(4).op("i32.mul", "i32.add").memory(
        "v128.load32_splat",
        this.#layout.high * 4,
      );
      code.set(high.words);
      shiftIn(6).i32(1).op("i32.shl").set(high.from);
    }
    code.get(i).i32(4).op("i32.shr_u").i32(1).op("i32.and").set(group);
    this.scales(run, this.groups > 1 ? { at: group } : 0);
    this.codes(words, () => this.finish(), high, 1);
    code.release("v128", words, ...(high ? [high.words] : []));
    code.release("i32", run, at, shift, group, ...(high ? [high.from] : []));
  }

  /** The words of upper bits that `push` pushes, and where this run's begin; nothing for other formats. */
  #high(push: () => void, run: Local): UpperBits | undefined {
    if (this.format.bits !== 6) return undefined;
    const { code } = this, words = code.local("v128"), from = code.local("i32");
    push();
    code.set(words).get(run).i32(1).op("i32.and").i32(16).op("i32.mul").set(from);
    return { words, from };
  }

  /** A local with the address of the 64 upper bits' words of a run, less the region's place. */
  #highAddress(run: Local): Local {
    const { code } = this, at = code.local("i32");
    code.get(this.pointer).get(run).i32(1).op("i32.shr_u").i32(16).op("i32.mul", "i32.add").set(at);
    return at;
  }

  /** Runs `body` with what is on the stack put aside. */
  #between(body: () => void): void {
    const { code } = this, aside = code.local("v128");
    code.set(aside);
    body();
    code.get(aside);
    code.release("v128", aside);
  }
}

const loads = { 1: "i32.load8_u", 2: "i32.load16_u", 4: "i32.load" } as const;

function four(x: number): [number, number, number, number] {
  return [x, x, x, x];
}
