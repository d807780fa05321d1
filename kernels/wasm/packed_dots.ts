/** Dot products of a few f32 rows with packed rows: codes are multiplied as they are, and scaled once a group. */
import type { PackedType } from "../../core/packed.ts";
import type { Limit, Local } from "./assembler.ts";
import type { PackedReader } from "./packed.ts";

/** The packed side of dot products: its type, and how many values the whole operand has. */
export interface PackedDots {
  readonly type: PackedType;
  readonly size: number;
  readonly rows: PreparedRows;
}

/** Runs whose scales are computed at once, one in each lane: as many as there are, then what is left. */
const batches = [4, 2];

/** Whether codes are multiplied where they stand in their words, times 16ʲ, and rows are divided by that beforehand. */
function inPlace({ format }: PackedReader): boolean {
  return format.bits === 4 && typeof format.code === "object";
}

/** The rows that packed rows are multiplied with, made ready once for many of them. */
export interface PreparedRows {
  /** The address of the first row, and bytes from one to the next. */
  readonly at: Local;
  readonly rowBytes: number;
  /** The address of the rows' sums of each run, row by row, and bytes from one row's to the next. */
  readonly sums: Local;
  readonly sumBytes: number;
}

/** Bytes of scratch that preparing rows of `depth` values takes. */
export function preparedBytes(rows: number, depth: number): number {
  return rows * (depth + depth / 32) * 4;
}

/** Prepares `rows` rows of `depth` f32 at `left`, `leftRow` bytes apart, in the scratch at `to`. */
export function emitPreparedRows(
  reader: PackedReader,
  left: Local,
  leftRow: number,
  rows: number,
  depth: number,
  to: Local,
): PreparedRows {
  const { code } = reader, scaled = inPlace(reader);
  const [k, from, at, sums, line] = Array.from({ length: 5 }, () => code.local("i32"));
  const sum = code.local("v128"), value = code.local("v128");
  const rowBytes = depth * 4, sumBytes = depth / 32 * 4;
  code.get(to).i32(scaled ? rows * rowBytes : 0).op("i32.add").set(sums);
  if (scaled || reader.format.shifted) {
    for (let row = 0; row < rows; row++) {
      code.get(left).i32(row * leftRow).op("i32.add").set(from).get(to).i32(row * rowBytes).op("i32.add").set(at);
      code.get(sums).i32(row * sumBytes).op("i32.add").set(line).i32(0).set(k);
      code.loopUpTo(k, { constant: depth }, 32, () => {
        for (let i = 0; i < 8; i++) {
          code.get(from).memory("v128.load", i * 16).set(value);
          code.get(value);
          if (i > 0) code.get(sum).op("f32x4.add");
          code.set(sum);
          if (scaled) code.get(at).get(value).f32x4(16 ** -(i & 3)).op("f32x4.mul").memory("v128.store", i * 16);
        }
        code.get(sum).get(sum).get(sum).shuffle(2, 3, 0, 1).op("f32x4.add").set(sum);
        code.get(line).get(sum).get(sum).get(sum).shuffle(1, 0, 3, 2).op("f32x4.add");
        code.laneMemory("v128.store32_lane", 0);
        code.get(from).i32(128).op("i32.add").set(from).get(at).i32(128).op("i32.add").set(at);
        code.get(line).i32(4).op("i32.add").set(line);
      });
    }
  }
  code.release("i32", k, from, at, line);
  code.release("v128", sum, value);
  return scaled ? { at: to, rowBytes, sums, sumBytes } : { at: left, rowBytes: leftRow, sums, sumBytes };
}

/**
 * Adds to `sums`, in the first two vectors of each row, the products of prepared rows with the packed row whose first run is
 * `run`, `depth` values long: Σ scale·Σ code·x + shift·Σ x. The locals of `rows` are advanced.
 */
export function emitPackedDots(
  reader: PackedReader,
  sums: readonly (readonly Local[])[],
  rows: PreparedRows,
  run: Local,
  depth: Limit,
): void {
  const { code, relaxed } = reader, scaled = inPlace(reader);
  const k = code.local("i32"), value = code.local("v128");
  // Independent sums within a run hide the latency of additions.
  const parts = sums.map(() => [code.local("v128"), code.local("v128")]);
  const multiplyAdd = (a: () => void, b: () => void, sum: Local) => {
    a();
    b();
    if (relaxed) code.get(sum).op("f32x4.relaxed_madd");
    else code.op("f32x4.mul").get(sum).op("f32x4.add");
    code.set(sum);
  };
  const started = new Set<Local>();
  /** Adds values i … i + 3, on the stack, times the same of each row of run `r` of a batch. */
  const add = (r: number, i: number) => {
    code.set(value);
    parts.forEach((list, row) => {
      const sum = list[(i >> 2) % list.length];
      const x = () => code.get(rows.at).memory("v128.load", row * rows.rowBytes + r * 128 + i * 4);
      if (started.has(sum)) return multiplyAdd(() => code.get(value), x, sum);
      started.add(sum);
      code.get(value);
      x();
      code.op("f32x4.mul").set(sum);
    });
  };
  /** Adds the parts, scaled, to the sums. */
  const flush = (scale: () => void) => {
    parts.forEach((list, row) => {
      code.get(list[0]).get(list[1]).op("f32x4.add").set(list[0]);
      multiplyAdd(scale, () => code.get(list[0]), sums[row][0]);
    });
    started.clear();
  };
  const shift = (load: "v128.load" | "v128.load64_zero" | "v128.load32_zero") => {
    if (!reader.format.shifted) return;
    sums.forEach((sum, row) => {
      const runSums = () => code.get(rows.sums).memory(load, row * rows.sumBytes);
      multiplyAdd(() => code.get(reader.shift), runSums, sum[1]);
    });
  };
  const advance = (runs: number) => {
    code.get(run).i32(runs).op("i32.add").set(run);
    code.get(rows.at).i32(128 * runs).op("i32.add").set(rows.at);
    code.get(rows.sums).i32(4 * runs).op("i32.add").set(rows.sums);
  };
  code.i32(0).set(k);
  if (reader.groups === 1) {
    for (const batch of batches) {
      code.loopUpTo(k, depth, 32 * batch, () => {
        reader.scales(run, 0, 1, batch - 1);
        for (let r = 0; r < batch; r++) {
          if (scaled) reader.nibbles(run, r, (i) => add(r, i));
          else reader.unscaled(run, r, (i) => add(r, i));
          flush(() => code.get(reader.scale).get(reader.scale).shuffle(r, r, r, r));
        }
        shift(batch === 4 ? "v128.load" : "v128.load64_zero");
        advance(batch);
      });
    }
  }
  code.loopUpTo(k, depth, 32, () => {
    const end = () => flush(() => code.get(reader.scale));
    if (scaled) {
      reader.scales(run, 0);
      reader.nibbles(run, 0, (i) => add(0, i));
      end();
    } else reader.run(run, (i) => add(0, i), end);
    shift("v128.load32_zero");
    advance(1);
  });
  code.release("i32", k);
  code.release("v128", value, ...parts.flat());
}
