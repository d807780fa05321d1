/** Who sees whom: the ranges of keys and queries that a block of attention touches, and what is visible within them. */
import type { AttentionKernel, AttentionOperand } from "../../ir/kernel.ts";
import type { Code, Local } from "../assembler.ts";

/** The keys [bound, limit) of one query; from key 0 on where `bound` is null. */
export interface VisibleKeys {
  readonly bound: Local | null;
  readonly limit: Local;
}

/** Emits what of an attention kernel's mask, offset and bounds a pass asks for. */
export class MaskRanges {
  constructor(
    readonly code: Code,
    readonly kernel: AttentionKernel,
    /** The address of an operand. */
    readonly pointer: (name: AttentionOperand) => Local,
  ) {}

  /** The keys [begin, end) outside which no query of [first, last) sees any: no other key is touched. */
  keyRange(b: Local, first: Local, last: Local): { begin: Local; end: Local; count: Local } {
    const { code } = this;
    const begin = code.local("i32"), count = code.local("i32"), end = this.#lastKey(b, last);
    code.i32(0).set(begin);
    if (this.kernel.bounded) {
      const i = code.local("i32"), bound = code.local("i32");
      code.get(end).set(begin).get(first).set(i);
      code.loopUpTo(i, last, 1, () => {
        code.get(this.firstKeyAddress(b, i)).memory("i32.load").set(bound);
        code.limit(begin, bound);
      });
      code.get(begin).i32(0).get(begin).i32(0).op("i32.gt_s", "select").set(begin);
      code.release("i32", i, bound);
    }
    code.get(end).get(begin).op("i32.sub").set(count);
    return { begin, end, count };
  }

  /** One past the last key that any query before `last` sees. */
  #lastKey(b: Local, last: Local): Local {
    const { code } = this, { keys } = this.kernel;
    const end = code.local("i32"), before = code.local("i32");
    code.get(last).i32(1).op("i32.sub").set(before);
    code.get(this.keyLimit(before)).set(end);
    // Keys at the end that the mask hides, as padding is, are not looked at either.
    const address = code.local("i32");
    code.get(this.pointer("mask")).get(b).i32(keys).op("i32.mul").get(end).op("i32.add").i32(4).op(
      "i32.mul",
      "i32.add",
    );
    code.set(address);
    code.repeatWhile(() => {
      code.get(end).i32(0).op("i32.gt_s").when(
        () => code.get(address).i32(4).op("i32.sub").memory("i32.load").op("i32.eqz").set(before),
        () => code.i32(0).set(before),
      );
      code.get(before);
    }, () => {
      code.get(end).i32(1).op("i32.sub").set(end);
      code.get(address).i32(4).op("i32.sub").set(address);
    });
    return end;
  }

  /** How many keys query `i` sees by its position, masks aside. */
  keyLimit(i: Local): Local {
    const { code } = this, { keys, causal } = this.kernel;
    const limit = code.local("i32");
    if (!causal) {
      code.i32(keys).set(limit);
      return limit;
    }
    this.#offset().get(i).op("i32.add").i32(1).op("i32.add").set(limit);
    code.limit(limit, { constant: keys }).get(limit);
    code.i32(0).get(limit).i32(0).op("i32.gt_s", "select").set(limit);
    return limit;
  }

  /** Puts the place of the first query among the keys on the stack. */
  #offset(): Code {
    const { offset } = this.kernel;
    return offset !== null ? this.code.i32(offset) : this.code.get(this.pointer("offset")).memory("i32.load");
  }

  /** The address of the first key that query `i` may see, where the kernel is bounded. */
  firstKeyAddress(b: Local, i: Local): Local {
    const { code } = this;
    const local = code.local("i32");
    code.get(b).i32(this.kernel.queries).op("i32.mul").get(i).op("i32.add").i32(4).op("i32.mul");
    code.get(this.pointer("first")).op("i32.add").set(local);
    return local;
  }

  /** How many queries from `start` on there are up to the last that may see a key before `last`. */
  visibleQueryCount(b: Local, start: Local, last: Local): Local {
    const { code } = this, { queries, bounded } = this.kernel;
    const count = code.local("i32"), i = code.local("i32"), blind = code.local("i32");
    code.i32(queries).get(start).op("i32.sub").set(count);
    if (!bounded) return count;
    code.repeatWhile(() => {
      code.get(count).i32(0).op("i32.gt_s").when(() => {
        code.get(start).get(count).op("i32.add").i32(1).op("i32.sub").set(i);
        code.get(this.firstKeyAddress(b, i)).memory("i32.load").get(last).op("i32.ge_s").set(blind);
      }, () => code.i32(0).set(blind));
      code.get(blind);
    }, () => code.get(count).i32(1).op("i32.sub").set(count));
    return count;
  }

  /** The first query that sees key `j`, at most the number of queries. */
  firstQuery(j: Local): Local {
    const { code } = this, { queries, causal } = this.kernel;
    const first = code.local("i32");
    if (!causal) {
      code.i32(0).set(first);
      return first;
    }
    code.get(j);
    this.#offset().op("i32.sub").tee(first);
    code.i32(0).get(first).i32(0).op("i32.gt_s", "select").set(first);
    code.limit(first, { constant: queries });
    return first;
  }

  /** The first query that sees key `j`, counted from query `start`. */
  queryOffset(j: Local, start: Local): Local {
    const from = this.firstQuery(j);
    this.code.get(from).get(start).op("i32.sub").set(from);
    return from;
  }

  /** Ones in every lane where the mask shows key `j`. */
  maskOf(b: Local, j: Local): Local {
    const { code } = this;
    const shown = code.local("v128");
    code.get(this.pointer("mask")).get(b).i32(this.kernel.keys).op("i32.mul").get(j).op("i32.add");
    code.i32(4).op("i32.mul", "i32.add").memory("v128.load32_splat").i32x4(0, 0, 0, 0).op("i32x4.ne").set(shown);
    return shown;
  }

  /** The keys that query `i` sees, masks aside: the first of them, where the kernel is bounded, and one past the last. */
  visibleRange(b: Local, i: Local): VisibleKeys {
    const limit = this.keyLimit(i);
    if (!this.kernel.bounded) return { limit, bound: null };
    const bound = this.code.local("i32");
    this.code.get(this.firstKeyAddress(b, i)).memory("i32.load").set(bound);
    return { limit, bound };
  }

  /** Pushes which of the four keys from begin + c on are among those seen and shown by the mask. */
  pushVisible(b: Local, begin: Local, c: Local, { limit, bound }: VisibleKeys): void {
    const { code } = this;
    const key = code.local("i32"), keys = code.local("v128");
    code.get(begin).get(c).op("i32.add").tee(key).op("i32x4.splat").i32x4(0, 1, 2, 3).op("i32x4.add").set(keys);
    code.get(this.pointer("mask")).get(b).i32(this.kernel.keys).op("i32.mul").get(key).op("i32.add");
    code.i32(4).op("i32.mul", "i32.add").memory("v128.load").i32x4(0, 0, 0, 0).op("i32x4.ne");
    code.get(keys).get(limit).op("i32x4.splat", "i32x4.lt_s", "v128.and");
    if (bound !== null) code.get(keys).get(bound).op("i32x4.splat", "i32x4.ge_s", "v128.and");
    code.release("i32", key);
    code.release("v128", keys);
  }

  /** Pushes which of the four queries whose first keys stand at `bounds` + 4·c may see key `j`. */
  pushVisibleQueries(bounds: Local, c: Local, j: Local): void {
    const { code } = this;
    code.get(bounds).get(c).i32(4).op("i32.mul", "i32.add").memory("v128.load");
    code.get(j).op("i32x4.splat", "i32x4.le_s");
  }
}
