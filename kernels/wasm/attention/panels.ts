/** Rows of an attention head packed as panels of eight, from which register tiles read fastest. */
import type { Code, Local } from "../assembler.ts";
import { emitCopiedBlock, emitTranspose } from "../gemm/pack.ts";

/** Columns of a panel. */
export const panelWidth = 8;

/**
 * Packs `count` rows of `width` elements, `rowBytes` apart, turned: panels `[width][8]` of eight rows each. Lanes past the
 * last row repeat it.
 */
export function emitTurnedPanels(
  code: Code,
  from: Local,
  rowBytes: number,
  count: Local,
  width: number,
  to: Local,
): void {
  const [c, k, at, last] = Array.from({ length: 4 }, () => code.local("i32"));
  const rows = Array.from({ length: panelWidth }, () => code.local("i32"));
  code.get(count).i32(1).op("i32.sub").set(last).get(to).set(at).i32(0).set(c);
  code.loopUpTo(c, count, 1, () => {
    rows.forEach((row, i) => {
      code.get(c).i32(i).op("i32.add").set(row).limit(row, last);
      code.get(row).i32(rowBytes).op("i32.mul").get(from).op("i32.add").set(row);
    });
    const advance = (steps: number) => {
      for (const row of rows) code.get(row).i32(4 * steps).op("i32.add").set(row);
      code.get(at).i32(4 * panelWidth * steps).op("i32.add").set(at);
    };
    code.i32(0).set(k);
    for (const steps of [16, 4]) {
      code.loopUpTo(k, { constant: width }, steps, () => {
        for (let s = 0; s < steps; s += 4) {
          for (let half = 0; half < panelWidth; half += 4) {
            const load = (i: number) => code.get(rows[half + i]).memory("v128.load", 4 * s);
            emitTranspose(code, 4, load, at, (i) => 4 * panelWidth * (s + i) + 4 * half);
          }
        }
        advance(steps);
      });
    }
    code.loopUpTo(k, { constant: width }, 1, () => {
      rows.forEach((row, i) => {
        code.get(at).get(row).memory("v128.load32_zero").laneMemory("v128.store32_lane", 0, 4 * i);
      });
      advance(1);
    });
  }, panelWidth);
  code.release("i32", c, k, at, last, ...rows);
}

/** Packs `count` rows, `rowBytes` apart, as they are: panels `[count][8]` of eight columns, `next` bytes apart. */
export function emitStraightPanels(
  code: Code,
  from: Local,
  rowBytes: number,
  count: Local,
  width: number,
  to: Local,
  next: number,
): void {
  const depth = { start: null, length: count, end: count, most: 0 };
  const panels = Math.ceil(width / panelWidth);
  emitCopiedBlock(code, { dtype: "f32", k: rowBytes / 4 }, depth, from, panels, panelWidth, to, next);
}
