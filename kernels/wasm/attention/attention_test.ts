import { assert, assertEquals } from "@std/assert";
import { attentionKernel, firstKeys } from "../../../testing/cases/attention.ts";
import { fill, numbers, runKernel, worstError } from "../../../testing/check_kernel.ts";
import { openCpu } from "../../device/cpu/cpu.ts";

Deno.test("attention: forward and both gradients, grouped heads, masks, offsets and odd sizes", async () => {
  for (const relaxed of [undefined, false]) {
    using device = await openCpu({ threads: 1, relaxed });
    for (const pass of ["forward", "backward-q", "backward-kv"] as const) {
      for (
        const [queries, keys, width] of [[1, 1, 1], [5, 5, 4], [7, 19, 6], [40, 70, 16], [1, 33, 64], [130, 130, 8]]
      ) {
        for (const [causal, bounded] of [[false, false], [true, false], [false, true], [true, true]]) {
          const kvHeads = queries % 2 ? 2 : 4;
          const sizes = { pass, batch: 4, heads: 4, kvHeads, queries, keys, width, causal, bounded };
          const kernel = attentionKernel(sizes, queries !== 40);
          const next = numbers(queries + keys);
          const data = kernel.operands.map((o) => fill(o, next));
          data[4][0] = keys - queries;
          if (bounded) data[5] = firstKeys(sizes);
          // Row 1 masks its first keys: the first causal queries there see none.
          for (let j = 0; j < keys / 3; j++) data[3][keys + j] = 0;
          const error = await worstError(device, kernel, data);
          assert(
            error < 4e-6,
            `${pass} ${queries}x${keys}x${width} ${causal ? "causal" : "full"} ${bounded}: ${error}`,
          );
        }
      }
    }
  }
});

Deno.test("attention: the same bits for any number of threads", async () => {
  for (const pass of ["forward", "backward-q", "backward-kv"] as const) {
    const sizes = {
      pass,
      batch: 2,
      heads: 4,
      kvHeads: 2,
      queries: 90,
      keys: 90,
      width: 16,
      causal: true,
      bounded: true,
    };
    const kernel = attentionKernel(sizes);
    const next = numbers(8);
    const data = kernel.operands.map((o) => fill(o, next));
    data[4][0] = 0;
    data[5] = firstKeys(sizes);
    const results = [];
    for (const threads of [1, 2, 3]) {
      using device = await openCpu({ threads });
      results.push(await runKernel(device, kernel, data));
    }
    assertEquals(results[0], results[1]);
    assertEquals(results[0], results[2]);
  }
});
