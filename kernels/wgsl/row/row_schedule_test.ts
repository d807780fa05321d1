import { assert } from "@std/assert";
import type { RowKernel } from "../../ir/kernel.ts";
import { scheduleRow } from "./row_schedule.ts";
import { gpuTile, softwareTile } from "../tile.ts";

Deno.test("no lane adds up more than 4,096 terms, however long the row", () => {
  for (const tile of [softwareTile, gpuTile]) {
    for (const cols of [768, 4096, 4100, 16_384, 49_152, 151_936]) {
      const f32 = (size: number, access: "read" | "write") => ({ dtype: "f32", size, access }) as const;
      const load = { kind: "load", type: "f32", operand: 0, index: { offset: 0, strides: [cols, 1] } } as const;
      const kernel: RowKernel = {
        kind: "row",
        operands: [f32(128 * cols, "read"), f32(128, "write")],
        rows: [128],
        cols,
        phases: [
          { kind: "reduce", op: "sum", value: load },
          {
            kind: "once",
            stores: [{
              operand: 1,
              index: { offset: 0, strides: [1, 0] },
              value: { kind: "result", type: "f32", phase: 0 },
            }],
          },
        ],
      };
      const { lanes, unit } = scheduleRow(kernel, tile, 4, false);
      assert(cols / unit / lanes <= 4096, `${tile.name}: ${cols} columns by ${lanes} lanes of ${unit}`);
    }
  }
});
