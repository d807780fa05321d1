/** Every primitive on every device is what the oracle says, within a bound that is derived or tabled, never tuned. */
import type { ScalarOp } from "../../core/ops/elementwise.ts";
import { assert, assertEquals } from "@std/assert";
import { isFloat } from "../../core/dtype.ts";
import { bind, newInput, type Value } from "../../core/ir/graph.ts";
import { operations } from "../../core/registry.ts";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { gamma } from "../../lora/bound.ts";
import { evaluateTerms, fromHost, toHost } from "../../testing/oracle.ts";
import { runtimes } from "../runtimes.ts";
import { eachCase } from "./primitive_cases.ts";
import { ulps } from "../../testing/oracle_scalar.ts";

const cases = Map.groupBy(eachCase(), (c) => c.prim);

for (const { name, open } of runtimes.slice(1)) {
  Deno.test(`${name}: every primitive is what the oracle says`, async (t) => {
    using runtime = await open();
    for (const prim of operations) {
      await t.step(prim.name, async () => {
        for (const { name: what, spec, data } of cases.get(prim.name)!) {
          const inputs = data.map((x) => newInput({ shape: x.shape, dtype: x.dtype }));
          const want = evaluateTerms({ inputs, outputs: [...bind(prim, inputs, spec.params)] }, data);
          const run = runtime.jit((...values: Value[]) => [...bind(prim, values, spec.params)]);
          const tensors = data.map((x) => upload(runtime.home, toHost(x)));
          const got: (HostTensor | number)[] = await runtime.read(run(...tensors));
          want.forEach(({ value, terms }, i) => {
            const host = got[i];
            const numbers = typeof host === "number" ? Float64Array.of(host) : fromHost(host).data;
            assertEquals(numbers.length, value.data.length, what);
            const table = prim.lowering.kind === "scalar" ? ulps[prim.lowering.op as ScalarOp] : undefined;
            const ulp = table?.[name.startsWith("webgpu") ? "webgpu" : "cpu"] ?? 0;
            numbers.forEach((x, j) => {
              const y = value.data[j];
              const scale = table?.absolute ? Math.max(1, Math.abs(y)) : Math.abs(y);
              const allowed = !isFloat(value.dtype)
                ? 0
                : spec.length === undefined
                ? ulp * 2 ** -23 * scale
                : gamma(spec.length + 2) * terms[j];
              assert(Math.abs(x - y) <= allowed, `${what}: output ${i}[${j}] is ${x}, not ${y} ± ${allowed}`);
            });
          });
        }
      });
    }
  });
}
