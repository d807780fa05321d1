/** Dot products of a few f32 rows with packed rows: codes are multiplied as they are, and scaled once a group. */
import type { PackedType } from "../../core/packed.ts";
import type { Code, Limit, Local } from "./assembler.ts";
import type { PackedReader } from "./packed.ts";

/** The packed side of dot products: its type, and how many values the whole operand has. */
export interface PackedDots {
  readonly type: PackedType;
  readonly size: number;
}

/**
 * Adds to `sums`, in the first vector of each row, the products of the rows at `left` (`leftRow` bytes apart) with the packed
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
  const k = code.local("i32"), value = code.local("v128");
  // Independent sums within a run hide the latency of additions.
  const parts = sums.map(() => Array.from({ length: sums.length === 1 ? 4 : 2 }, () => code.local("v128")));
  const multiplyAdd = (a: Local, b: () => void, sum: Local) => {
    code.get(a);
    b();
    if (relaxed) code.get(sum).op("f32x4.relaxed_madd");
    else code.op("f32x4.mul").get(sum).op("f32x4.add");
    code.set(sum);
  };
  code.i32(0).set(k);
  code.loopUpTo(k, depth, 32, () => {
    const started = new Set<Local>();
    reader.run(run, (i) => {
      code.set(value);
      parts.forEach((part, r) => {
        const sum = part[(i >> 2) % part.length];
        const x = () => code.get(left).memory("v128.load", r * leftRow + i * 4);
        if (started.has(sum)) return multiplyAdd(value, x, sum);
        started.add(sum);
        code.get(value);
        x();
        code.op("f32x4.mul").set(sum);
      });
    }, () => {
      parts.forEach((part, r) => {
        for (let step = 1; step < part.length; step *= 2) {
          for (let i = 0; i < part.length; i += 2 * step) {
            code.get(part[i]).get(part[i + step]).op("f32x4.add").set(part[i]);
          }
        }
        multiplyAdd(reader.scale, () => code.get(part[0]), sums[r][0]);
        // The rows' sums of one run lie side by side.
        if (reader.format.shifted) {
          multiplyAdd(reader.shift, () => code.get(runSums).memory("v128.load", r * 16), sums[r][0]);
        }
      });
      started.clear();
    });
    code.get(run).i32(1).op("i32.add").set(run);
    code.get(left).i32(128).op("i32.add").set(left);
    code.get(runSums).i32(16 * sums.length).op("i32.add").set(runSums);
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
