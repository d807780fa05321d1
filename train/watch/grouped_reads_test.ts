import { assertEquals } from "@std/assert";
import { tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { groupReads } from "./grouped_reads.ts";

Deno.test("short steps are read together, long ones alone, and all lines come in order", async (t) => {
  using device = await openCpu({ threads: 1, blas: false });
  let waits = 0;
  const count = device.read.bind(device);
  device.read = (requests) => {
    waits++;
    return count(requests);
  };
  for (
    const { name, milliseconds, expected } of [
      { name: "4 ms a step", milliseconds: 4, expected: 1 + 4 },
      { name: "100 ms a step", milliseconds: 100, expected: 32 },
    ]
  ) {
    await t.step(name, async () => {
      waits = 0;
      let clock = 0;
      const reads = groupReads(8, () => clock);
      const seen: number[] = [];
      for (let step = 1; step <= 32; step++) {
        clock += milliseconds;
        reads.add({ step, lr: 0, tokens: 0 }, { loss: tensor(device, step), gradNorm: tensor(device, 1) });
        while (reads.waiting > 0) seen.push(...(await reads.oldest()).map(({ loss }) => loss));
      }
      reads.close();
      while (reads.waiting > 0) seen.push(...(await reads.oldest()).map(({ loss }) => loss));
      assertEquals(seen, Array.from({ length: 32 }, (_, i) => i + 1));
      assertEquals(waits, expected);
    });
  }
});
