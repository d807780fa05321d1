/** Packed rows written out as f32, for tiles and for a BLAS. */
import type { Limit, Local } from "../assembler.ts";
import type { PackedReader } from "./packed.ts";

/**
 * Unpacks rows whose values are contiguous: `rows` of them, `step` values apart, each of `runs` whole runs, the first of
 * which is `run`. Value i of a run goes to `to + offset(i)`; runs lie `runBytes` apart there, and rows `rowBytes`.
 */
export function emitUnpackedRows(
  reader: PackedReader,
  run: Local,
  step: number,
  rows: Limit,
  runs: Limit,
  to: Local,
  { offset, runBytes, rowBytes }: { offset: (i: number) => number; runBytes: number; rowBytes: number },
): void {
  const { code } = reader;
  const [row, count, from, at, line] = Array.from({ length: 5 }, () => code.local("i32"));
  code.get(to).set(line).i32(0).set(row);
  const first = code.local("i32");
  code.get(run).set(first);
  const value = code.local("v128");
  code.loopUpTo(row, rows, 1, () => {
    code.get(line).set(at).get(first).set(from).i32(0).set(count);
    code.loopUpTo(count, runs, 1, () => {
      reader.run(from, (i) => code.set(value).get(at).get(value).memory("v128.store", offset(i)));
      code.get(from).i32(1).op("i32.add").set(from);
      code.get(at).i32(runBytes).op("i32.add").set(at);
    });
    code.get(first).i32(step / 32).op("i32.add").set(first);
    code.get(line).i32(rowBytes).op("i32.add").set(line);
  });
  code.release("i32", row, count, from, at, line, first);
  code.release("v128", value);
}

/**
 * Unpacks `count` rows, `step` values apart and contiguous along k, as one panel `[k][width]` at `to`: `length` values of
 * each, whole runs, the first of which is `run`. Lanes past `count` repeat the last row.
 */
export function emitUnpackedPanel(
  reader: PackedReader,
  run: Local,
  step: number,
  length: Limit,
  count: number,
  width: number,
  to: Local,
): void {
  const { code } = reader;
  const [k, at, from, group] = Array.from({ length: 4 }, () => code.local("i32")), value = code.local("v128");
  code.get(run).set(from).get(to).set(at).i32(0).set(k);
  code.loopUpTo(k, length, 32, () => {
    for (let c = 0; c < width; c += 4) {
      const first = Math.min(c, count - 1);
      code.get(from).i32(first * step / 32).op("i32.add").set(group);
      reader.rows(group, step / 32, count - 1 - first, (i) => {
        code.set(value).get(at).get(value).memory("v128.store", i * width * 4 + c * 4);
      });
    }
    code.get(from).i32(1).op("i32.add").set(from);
    code.get(at).i32(32 * width * 4).op("i32.add").set(at);
  });
  code.release("i32", k, at, from, group);
  code.release("v128", value);
}
