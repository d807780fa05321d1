import { assertEquals } from "@std/assert";
import { tensor } from "../core/tensor.ts";
import { devices } from "../tests/devices.ts";
import { openCpu } from "./device/cpu/cpu.ts";

Deno.test("console.log shows a tensor's shape, dtype, device and first values", async () => {
  using device = await openCpu({ threads: 1, blas: false });
  using x = tensor(device, [[1, 2.5], [-3, 1 / 3]]);
  assertEquals(Deno.inspect(x), `Tensor(f32[2,2] on ${device.description}): 1, 2.5, -3, 0.333333`);
  using half = tensor(device, Array.from({ length: 10 }, (_, i) => i / 2), "f16");
  assertEquals(Deno.inspect(half), `Tensor(f16[10] on ${device.description}): 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, …`);
  const gone = tensor(device, [1]);
  gone.dispose();
  assertEquals(Deno.inspect(gone), `Tensor(f32[1] on ${device.description})`);
});

for (const { name, open } of devices) {
  Deno.test(`a notebook shows the same of a tensor on ${name}`, async () => {
    using device = await open();
    using x = tensor(device, [1, 2]);
    // deno-lint-ignore no-explicit-any -- the symbol by which a notebook asks
    const shown = await (x as any)[Symbol.for("Jupyter.display")]();
    assertEquals(shown, { "text/plain": `Tensor(f32[2] on ${device.description}): 1, 2` });
  });
}
