/**
 * Row kernels. Lanes lie along the columns, or along neighbouring rows where it is those that are contiguous. Either way
 * the order of every sum depends on the kernel alone.
 */
import type { ScalarType } from "../../core/dtype.ts";
import type { Phase, RowKernel } from "../ir/kernel.ts";
import type { Code, Limit, Local } from "./assembler.ts";
import type { EmittedKernel, KernelFrame } from "./frame.ts";
import type { PlainOpcode } from "./opcodes.ts";
import { PointEmitter } from "./point.ts";
import type { Space } from "./point_access.ts";
import type { Schedule } from "./schedule.ts";

type Reduce = Extract<Phase, { kind: "reduce" }>;

export function emitRow(frame: KernelFrame<"row">): EmittedKernel {
  const { kernel, schedule, code, unit } = frame, { rows } = kernel;
  const column = code.local("i32");
  const space = (axes: Local[], laneAxis: number) => frame.space([...axes, column], laneAxis);

  if (schedule.lanesAlong === "columns") {
    frame.eachUnit(() => {
      const axes = frame.unflatten(unit, rows);
      emitPhases(space(axes, rows.length), kernel, schedule, column, 4);
    });
    return frame.finish();
  }
  const outer = rows.slice(0, -1), length = rows[rows.length - 1];
  const { block } = schedule, blocks = Math.ceil(length / block);
  const flat = code.local("i32"), row = code.local("i32"), limit = code.local("i32");
  frame.eachUnit(() => {
    code.get(unit).i32(blocks).op("i32.div_u").set(flat);
    code.get(unit).i32(blocks).op("i32.rem_u").i32(block).op("i32.mul").tee(row);
    code.i32(block).op("i32.add").set(limit).limit(limit, { constant: length });
    const axes = [...frame.unflatten(flat, outer), row];
    for (const lanes of [4, 1] as const) {
      if (lanes === 1 && length % 4 === 0) continue;
      const body = () => emitPhases(space(axes, rows.length - 1), kernel, schedule, column, lanes);
      code.loopUpTo(row, limit, lanes, body);
    }
  });
  return frame.finish();
}

/** All phases of one row, or of four rows side by side where the lane axis is not the column. */
function emitPhases(
  base: Space,
  { phases, cols }: RowKernel,
  { lanesAlong, accumulators }: Schedule<"row">,
  column: Local,
  lanes: 1 | 4,
): void {
  const { code } = base;
  const results: (Local | null)[] = [];
  const space: Space = {
    ...base,
    result: { axes: (1 << base.loopAxis) - 1, push: (phase) => code.get(results[phase]!) },
  };
  const alongColumns = lanesAlong === "columns";
  const point = new PointEmitter(space);
  const rewritten = base.operands.some((o) => o.access === "inout");
  phases.forEach((phase, p) => {
    if (rewritten) point.forget();
    code.i32(0).set(column);
    if (phase.kind === "reduce") {
      point.hoist([phase.value], [], lanes);
      results[p] = emitReduce(point, space, phase, cols, column, lanes, alongColumns ? accumulators : null);
      return;
    }
    results[p] = null;
    point.hoist([], phase.stores, lanes);
    if (phase.kind === "once") return point.store(phase.stores, alongColumns ? 1 : lanes);
    const end = { constant: cols };
    if (alongColumns) {
      if (cols >= 4) code.loopUpTo(column, end, 4, () => point.store(phase.stores, 4));
      if (cols % 4 !== 0) code.loopUpTo(column, end, 1, () => point.store(phase.stores, 1));
    } else code.loopUpTo(column, end, 1, () => point.store(phase.stores, lanes));
  });
}

/** Emits one reduction and returns the local with its result in every lane (or lane by lane, one row each). */
function emitReduce(
  point: PointEmitter,
  { code }: Space,
  phase: Reduce,
  cols: number,
  column: Local,
  lanes: 1 | 4,
  gathered: number | null,
): Local {
  const alongColumns = gathered !== null;
  const { op, value } = phase;
  const kind = op === "argmax" ? "max" : op;
  const type = value.type;
  const combine = combiners[type][kind];
  if (!combine) throw new Error(`a kernel asks for the ${op} of ${type} values`);
  const end = { constant: cols };
  const accumulator = () => {
    const local = code.local("v128");
    pushIdentity(code, type, kind);
    code.set(local);
    return local;
  };
  const best = accumulator();
  const at = op === "argmax" ? code.local("v128") : null;
  if (at !== null) code.i32x4(0, 0, 0, 0).set(at);

  const take = (into: Local, width: 1 | 4) => {
    if (at === null) {
      code.get(into);
      point.push(value, width);
      code.op(combine).set(into);
      return;
    }
    const x = code.local("v128"), better = code.local("v128");
    point.push(value, width);
    code.tee(x).get(best).op(greater[type]!).set(better);
    code.get(x).get(best).get(better).op("v128.bitselect").set(best);
    code.get(column).op("i32x4.splat");
    if (alongColumns && width === 4) code.i32x4(0, 1, 2, 3).op("i32x4.add");
    code.get(at).get(better).op("v128.bitselect").set(at);
    code.release("v128", x, better);
  };

  // Only sums of floats depend on their order.
  const chain = op === "sum" && type === "f32" ? longestChain : Infinity;
  if (!alongColumns) {
    inBlocks(code, column, cols, 1, chain, [best], (limit) => code.loopUpTo(column, limit, 1, () => take(best, lanes)));
    return at ?? best;
  }
  if (at === null && gathered > 1) {
    const accumulators = [best, accumulator(), accumulator(), accumulator()];
    inBlocks(
      code,
      column,
      cols - cols % 16,
      16,
      chain,
      accumulators,
      (limit) =>
        code.loopUpTo(column, limit, 16, () =>
          accumulators.forEach((into, i) => {
            if (i > 0) code.get(column).i32(4).op("i32.add").set(column);
            take(into, 4);
          }), 4),
    );
    for (const step of [1, 2]) {
      for (let i = 0; i < 4; i += 2 * step) {
        code.get(accumulators[i]).get(accumulators[i + step]).op(combine).set(accumulators[i]);
      }
    }
    code.release("v128", ...accumulators.slice(1));
  }
  if (cols >= 4) code.loopUpTo(column, end, 4, () => take(best, 4));
  if (at === null) acrossLanes(code, best, combine);
  else {
    // The least column among the lanes that hold the greatest value.
    const own = code.local("v128");
    code.get(best).set(own);
    acrossLanes(code, best, combine);
    code.get(at).i32x4(0x7fffffff, 0x7fffffff, 0x7fffffff, 0x7fffffff);
    code.get(own).get(best).op(type === "f32" ? "f32x4.eq" : "i32x4.eq", "v128.bitselect").set(at);
    acrossLanes(code, at, "i32x4.min_s");
    code.release("v128", own);
  }
  if (cols % 4 !== 0) {
    code.loopUpTo(column, end, 1, () => take(best, 1));
    const result = at ?? best;
    code.get(result).get(result).shuffle(0, 0, 0, 0).set(result);
  }
  return at ?? best;
}

/**
 * Terms that are added one to the other before their sum becomes one term of a further sum: rounding errors grow with the
 * length of such chains, not with that of the row. Blocks are joined eight at a time. With 16 accumulators n terms
 * are rounded at most 16 + 8·⌈log₈(n / 256)⌉ + 12 times (lanes along rows: n / 16 in place of n / 256, and no 12).
 */
const longestChain = 16;
const blocksPerBlock = 8;

/**
 * Runs `sum`, which adds the columns up to a limit to `into` and moves `column` there, over all `cols` of them: in blocks of
 * `chain` steps, blocks of some blocks, and so on.
 */
function inBlocks(
  code: Code,
  column: Local,
  cols: number,
  step: number,
  chain: number,
  into: readonly Local[],
  sum: (limit: Limit) => void,
): void {
  const zero = (locals: readonly Local[]) => locals.forEach((local) => code.i32x4(0, 0, 0, 0).set(local));
  const nest = (size: number, limit: Limit): void => {
    if (size <= step * chain) return void sum(limit);
    // The largest block that is more than one of the blocks below it.
    let block = step * chain;
    while (block * blocksPerBlock < size) block *= blocksPerBlock;
    const totals = into.map(() => code.local("v128")), end = code.local("i32");
    zero(totals);
    code.loopUpTo(column, limit, 1, () => {
      zero(into);
      code.get(column).i32(block).op("i32.add").set(end).limit(end, limit);
      nest(block, end);
      totals.forEach((total, i) => code.get(total).get(into[i]).op("f32x4.add").set(total));
    }, 0);
    totals.forEach((total, i) => code.get(total).set(into[i]));
    code.release("v128", ...totals);
    code.release("i32", end);
  };
  nest(cols, { constant: cols });
}

/** Combines the lanes of `local` and leaves the total in each. */
function acrossLanes(code: Code, local: Local, combine: PlainOpcode): void {
  code.get(local).get(local).get(local).shuffle(2, 3, 0, 1).op(combine).set(local);
  code.get(local).get(local).get(local).shuffle(1, 0, 3, 2).op(combine).set(local);
}

const combiners: Record<ScalarType, Partial<Record<"sum" | "max" | "min", PlainOpcode>>> = {
  f32: { sum: "f32x4.add", max: "f32x4.max", min: "f32x4.min" },
  i32: { sum: "i32x4.add", max: "i32x4.max_s", min: "i32x4.min_s" },
  u32: { sum: "i32x4.add", max: "i32x4.max_u", min: "i32x4.min_u" },
  bool: { max: "v128.or", min: "v128.and" },
};

const greater: Partial<Record<ScalarType, PlainOpcode>> = {
  f32: "f32x4.gt",
  i32: "i32x4.gt_s",
  u32: "i32x4.gt_u",
  bool: "i32x4.gt_u",
};

function pushIdentity(code: Code, type: ScalarType, kind: "sum" | "max" | "min"): void {
  if (kind === "sum") return void code.i32x4(0, 0, 0, 0);
  if (type === "f32") return void code.f32x4(kind === "max" ? -Infinity : Infinity);
  const low = type === "i32" ? -0x80000000 : 0, high = type === "i32" ? 0x7fffffff : -1;
  const word = kind === "max" ? low : high;
  code.i32x4(word, word, word, word);
}
