import { assert, assertEquals } from "@std/assert";
import { fill, numbers, runKernel, worstError } from "../../tests/reference/check_kernel.ts";
import { openCpu } from "../device/cpu.ts";
import type { AttentionKernel, HeadLayout, Operand } from "../kernel.ts";

/** An attention kernel over contiguous [batch, token, head, width] operands, or [batch, head, token, width] ones. */
function attention(
  sizes: Omit<AttentionKernel, "kind" | "operands" | "layouts" | "scale">,
  tokensFirst: boolean,
): AttentionKernel {
  const { batch, heads, kvHeads, queries, keys, width, pass } = sizes;
  const layout = (tokens: number, heads: number): HeadLayout => ({
    offset: 0,
    batch: tokens * heads * width,
    token: tokensFirst ? heads * width : width,
    head: tokensFirst ? width : tokens * width,
  });
  const q = { size: batch * queries * heads * width, layout: layout(queries, heads) };
  const k = { size: batch * keys * kvHeads * width, layout: layout(keys, kvHeads) };
  const statistic = { size: batch * heads * queries, layout: null };
  const reads = [q, k, k, { size: batch * keys, layout: null }, { size: 1, layout: null }];
  const [more, writes] = pass === "forward"
    ? [[], [q, statistic]]
    : [[q, statistic, statistic], pass === "backward-q" ? [q] : [k, k]];
  const all = [...reads, ...more, ...writes];
  const operands = all.map(({ size }, i): Operand => ({
    dtype: i === 3 ? "bool" : i === 4 ? "i32" : "f32",
    size,
    access: i < reads.length + more.length ? "read" : "write",
  }));
  return { kind: "attention", ...sizes, scale: 1 / Math.sqrt(width), operands, layouts: all.map((x) => x.layout) };
}

Deno.test("attention: forward and both gradients, grouped heads, masks, offsets and odd sizes", async () => {
  for (const relaxed of [undefined, false]) {
    using device = await openCpu({ threads: 1, relaxed });
    for (const pass of ["forward", "backward-q", "backward-kv"] as const) {
      for (
        const [queries, keys, width] of [[1, 1, 1], [5, 5, 4], [7, 19, 6], [40, 70, 16], [1, 33, 64], [130, 130, 8]]
      ) {
        for (const causal of [false, true]) {
          const sizes = { pass, batch: 2, heads: 4, kvHeads: queries % 2 ? 2 : 4, queries, keys, width, causal };
          const kernel = attention(sizes, queries !== 40);
          const next = numbers(queries + keys);
          const data = kernel.operands.map((o) => fill(o, next));
          data[4][0] = keys - queries;
          // Row 1 masks its first keys: the first causal queries there see none.
          for (let j = 0; j < keys / 3; j++) data[3][keys + j] = 0;
          const error = await worstError(device, kernel, data);
          assert(error < 4e-6, `${pass} ${queries}x${keys}x${width} ${causal ? "causal" : "full"}: ${error}`);
        }
      }
    }
  }
});

Deno.test("attention: the same bits for any number of threads", async () => {
  for (const pass of ["forward", "backward-q", "backward-kv"] as const) {
    const sizes = { pass, batch: 2, heads: 4, kvHeads: 2, queries: 90, keys: 90, width: 16, causal: true };
    const kernel = attention(sizes, true);
    const next = numbers(8);
    const data = kernel.operands.map((o) => fill(o, next));
    data[4][0] = 0;
    const results = [];
    for (const threads of [1, 2, 3]) {
      using device = await openCpu({ threads });
      results.push(await runKernel(device, kernel, data));
    }
    assertEquals(results[0], results[1]);
    assertEquals(results[0], results[2]);
  }
});
