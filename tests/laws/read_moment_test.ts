/** A read gives the values of its moment, whatever is done to the tensors before it is awaited. */
import { assertEquals } from "@std/assert";
import type { Value } from "../../core/ir/graph.ts";
import { add, mul } from "../../core/ops/elementwise.ts";
import { type HostTensor, tensor, upload } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";

for (const device of devices) {
  Deno.test(`reads are of their moment on ${device.name}`, async () => {
    using home = await device.open();
    const step = jit((x: Value) => add(mul(x, 2), 1), { donate: [0] });
    const before = home.memory.current;
    let params = tensor(home, [1, 2]);
    const reads = [read(params)];
    for (let i = 0; i < 4; i++) {
      params = step(params);
      reads.push(read({ params }).then(({ params }) => params));
    }
    reads.push(read(params, { release: true }));
    assertEquals(params.alive, false, "released at the call");
    const overwritten = tensor(home, [9, 9]);
    const want = [[1, 2], [3, 5], [7, 11], [15, 23], [31, 47], [31, 47]];
    assertEquals((await Promise.all(reads)).map((x) => [...(x as HostTensor).data]), want);
    const disposed = tensor(home, [4, 5]);
    const last = read([disposed, add(disposed, 1)]);
    disposed.dispose();
    const other = tensor(home, [8, 8]);
    assertEquals((await last).map((x: any) => [...x.data]), [[4, 5], [5, 6]]);
    for (const t of [overwritten, other]) t.dispose();
    assertEquals(home.memory.current, before);
  });

  Deno.test(`an array of no elements is uploaded and read on ${device.name}`, async () => {
    using home = await device.open();
    for (const shape of [[0], [0, 3], [3, 0]]) {
      const data = new Float32Array(0);
      assertEquals(await read(upload(home, { shape, dtype: "f32", data })), { shape, dtype: "f32", data });
    }
  });
}
