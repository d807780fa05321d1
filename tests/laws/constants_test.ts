/** Constants are what was written: no two different ones are taken for one, and what is folded is what would be computed. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { constant } from "../../core/ops/constant.ts";
import { add, bitcast, convert, mul } from "../../core/ops/elementwise.ts";
import { type HostTensor, tensor, upload } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";
import { runtimes } from "../runtimes.ts";
import type { Value } from "../../core/ir/graph.ts";

const bits = (x: number) => new Uint32Array(Float32Array.of(x).buffer)[0];
const numbers = fc.oneof(
  fc.constantFrom(NaN, Infinity, -Infinity, 0, -0, 1e-40, 16777217, 0.1),
  fc.float({ noDefaultInfinity: true }),
);

for (const { name, open } of runtimes) {
  Deno.test(`${name}: a scalar reads as the number it is, whatever it is stored as`, async () => {
    using runtime = await open();
    for (const dtype of ["f32", "f16", "bf16", "i32", "u32", "bool"] as const) {
      assertEquals(await runtime.read(tensor(runtime.home, 1, dtype)), 1, dtype);
      assertEquals(await runtime.read(runtime.jit((x: Value) => convert(x, dtype))(tensor(runtime.home, 1))), 1, dtype);
    }
    assertEquals(await runtime.read(tensor(runtime.home, -1.5, "bf16")), -1.5);
  });
}

for (const { name, open } of devices) {
  Deno.test(`${name}: constants side by side are each their own`, async () => {
    using device = await open();
    const zero = upload(device, { shape: [1], dtype: "u32", data: Uint32Array.of(0) });
    await fc.assert(
      fc.asyncProperty(fc.array(numbers, { minLength: 2, maxLength: 6 }), async (list) => {
        const f = (zero: Value) => list.map((x) => add(bitcast(constant(x), "u32"), zero));
        const got = await read(jit(f)(zero), { release: true });
        // A device may flush what is subnormal.
        const normal = list.map((x) => Math.abs(x) < 2 ** -126 && x !== 0 ? 0 : x);
        (got as HostTensor[]).forEach(({ data: [have] }, i) => {
          const wanted = [bits(list[i]), ...(normal[i] === list[i] ? [] : [bits(0), bits(-0)])];
          assertEquals(wanted.includes(have), true, `${list[i]} became the bits ${have}`);
        });
      }),
      { numRuns: name.startsWith("webgpu") ? 20 : 100 },
    );
  });

  Deno.test(`${name}: products of whole constants are those of their dtype`, async () => {
    using device = await open();
    const whole = fc.oneof(fc.constantFrom(0, 1, -1, 16777217, 2 ** 31 - 1, -(2 ** 31)), fc.integer());
    const zero = upload(device, { shape: [1], dtype: "i32", data: Int32Array.of(0) });
    await fc.assert(
      fc.asyncProperty(whole, whole, async (a, b) => {
        const f = (zero: Value) => add(mul(constant(a, "i32"), constant(b, "i32")), zero);
        assertEquals((await read(jit(f)(zero), { release: true }) as HostTensor).data[0], Math.imul(a, b));
      }),
      { numRuns: name.startsWith("webgpu") ? 20 : 100 },
    );
  });
}
