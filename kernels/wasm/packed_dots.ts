/** Dot products of a few f32 rows with packed rows: codes are multiplied as they are, and scaled once a group. */
import type { PackedType } from "../../core/packed.ts";
import type { Code, Limit, Local } from "./assembler.ts";
import type { PackedReader } from "./packed.ts";

/** The packed side of dot products: its type, and how many values the whole operand has. */
export interface PackedDots {
  readonly type: PackedType;
  readonly size: number;
}

/** Runs whose scales are computed at once, one in each lane. */
const batch = 4;

/**
 * Adds to `sums`, in the first two vectors of each row, the products of the rows at `left` (`leftRow` bytes apart) with the packed
 * row whose first run is `run`, `depth` values long: Σ scale·Σ code·x + shift·Σ x. `runSums` is the address of the last sum.
 */
export function emitPackedDots(
  reader: PackedReader,
  sums: readonly (readonly Local[])[],
  leftRow: number,
  left: Local,
  run: Local,
  depth: Limit,
  runSums: Local,
): void {
  const { code, relaxed } = reader;
  const k = code.local("i32");
  // Independent sums within a run hide the latency of additions. Nibbles are summed where they stand, times 16ʲ.
  const inPlace = reader.format.bits === 4 && typeof reader.format.code === "object";
  const parts = sums.map(() => Array.from({ length: inPlace || sums.length === 1 ? 4 : 2 }, () => code.local("v128")));
  const multiplyAdd = (a: () => void, b: () => void, sum: Local, into = sum) => {
    a();
    b();
    if (relaxed) code.get(sum).op("f32x4.relaxed_madd");
    else code.op("f32x4.mul").get(sum).op("f32x4.add");
    code.set(into);
  };
  const started = new Set<Local>();
  const value = code.local("v128");
  /** Adds values i … i + 3, on the stack, times the same of each row of run `r` of a batch. */
  const add = (r: number, i: number, part: number) => {
    code.set(value);
    parts.forEach((list, row) => {
      const sum = list[part % list.length];
      const x = () => code.get(left).memory("v128.load", row * leftRow + r * 128 + i * 4);
      if (started.has(sum)) return multiplyAdd(() => code.get(value), x, sum);
      started.add(sum);
      code.get(value);
      x();
      code.op("f32x4.mul").set(sum);
    });
  };
  /** Adds the parts of run `r`, scaled, to the sums. */
  const flush = (r: number, scale: () => void, shift: () => void) => {
    parts.forEach((list, row) => {
      for (let i = list.length - 2; i >= 0; i--) {
        if (inPlace) multiplyAdd(() => code.get(list[i + 1]), () => code.f32x4(1 / 16), list[i]);
        else code.get(list[i]).get(list[i + 1]).op("f32x4.add").set(list[i]);
      }
      multiplyAdd(scale, () => code.get(list[0]), sums[row][0]);
      // The rows' sums of one run lie side by side.
      const runSum = () => code.get(runSums).memory("v128.load", (r * sums.length + row) * 16);
      if (reader.format.shifted) multiplyAdd(shift, runSum, sums[row][1]);
    });
    started.clear();
  };
  const advance = (runs: number) => {
    code.get(run).i32(runs).op("i32.add").set(run);
    code.get(left).i32(128 * runs).op("i32.add").set(left);
    code.get(runSums).i32(16 * runs * sums.length).op("i32.add").set(runSums);
  };
  code.i32(0).set(k);
  if (reader.groups === 1) {
    code.loopUpTo(k, depth, 32 * batch, () => {
      reader.scales(run, 0, 1);
      for (let r = 0; r < batch; r++) {
        if (inPlace) reader.nibbles(run, r, (i, j) => add(r, i, j));
        else reader.unscaled(run, r, (i) => add(r, i, i >> 2));
        const lane = (of: Local) => () => code.get(of).get(of).shuffle(r, r, r, r);
        flush(r, lane(reader.scale), lane(reader.shift));
      }
      advance(batch);
    });
  }
  code.loopUpTo(k, depth, 32, () => {
    const all = (of: Local) => () => code.get(of);
    const end = () => flush(0, all(reader.scale), all(reader.shift));
    if (inPlace) {
      reader.scales(run, 0);
      reader.nibbles(run, 0, (i, j) => add(0, i, j));
      end();
    } else reader.run(run, (i) => add(0, i, i >> 2), end);
    advance(1);
  });
  code.release("i32", k);
  code.release("v128", value, ...parts.flat());
  reader.release();
}

/** Writes, for each run of 32 along k and each of `rows` rows at `left`, the row's sum in four lanes to `to`. */
export function emitRunSums(code: Code, left: Local, leftRow: number, rows: number, depth: number, to: Local): void {
  const k = code.local("i32"), from = code.local("i32"), at = code.local("i32");
  code.get(left).set(from).get(to).set(at).i32(0).set(k);
  code.loopUpTo(k, { constant: depth }, 32, () => {
    for (let r = 0; r < rows; r++) {
      code.get(at);
      for (let i = 0; i < 8; i++) {
        code.get(from).memory("v128.load", r * leftRow + i * 16);
        if (i > 0) code.op("f32x4.add");
      }
      code.memory("v128.store", r * 16);
    }
    code.get(from).i32(128).op("i32.add").set(from);
    code.get(at).i32(16 * rows).op("i32.add").set(at);
  });
  code.release("i32", k, from, at);
}
