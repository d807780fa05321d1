/** Two of everything: a jitted function runs on whichever device its arguments live on, whatever ran before and where. */
import { assertEquals, assertThrows } from "@std/assert";
import { DeviceError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add } from "../../core/ops/elementwise.ts";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { evaluate, read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";

for (const one of devices) {
  for (const other of devices) {
    Deno.test(`one function on ${one.name} and on ${other.name}, in turns`, async () => {
      using a = await one.open();
      using b = await other.open();
      const f = jit((x: Value, y: Value) => add(matmul(x, y), 1));
      const run = async (
        home: typeof a,
      ) => [...(await read(f(tensor(home, [[1, 2], [3, 4]]), tensor(home, [[5, 6], [7, 8]]))) as HostTensor).data];
      for (const home of [a, b, b, a, b]) assertEquals(await run(home), [20, 23, 44, 51]);
      // Both at once, with one read of both.
      const both = [a, b].map((home) => f(tensor(home, [[1]]), tensor(home, [[2]])));
      assertEquals((await read(both)).map((x: any) => x.data[0]), [3, 3]);
      const mixed = () => f(tensor(a, [[1]]), tensor(b, [[2]]));
      assertThrows(mixed, DeviceError, "move them to one device first");
      const w = tensor(a, [[5]]);
      assertThrows(() => jit((x: Value) => add(x, w))(tensor(b, [[1]])), DeviceError, "move them to one device first");
      assertEquals((await evaluate(add(w, 1)) as HostTensor).data[0], 6);
      // What the first device held is gone with it; the other has its own.
      a[Symbol.dispose]();
      assertEquals(await run(b), [20, 23, 44, 51]);
      assertThrows(() => tensor(a, [[1]]), DeviceError, "after it was disposed");
      assertThrows(() => f(w, w), DeviceError, "after it was disposed");
      using again = await one.open();
      assertEquals(await run(again), [20, 23, 44, 51]);
    });
  }
}
