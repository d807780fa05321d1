/** Laws that every primitive keeps, generated from the registry, on the oracle. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { formatAval, sizeOf } from "../../core/aval.ts";
import { isFloat } from "../../core/dtype.ts";
import { bind, newInput, type Primitive, type Value } from "../../core/ir/graph.ts";
import { reduceSum } from "../../core/ops/broadcast.ts";
import { bodyPrimitives, leafPrimitives, operations } from "../../core/registry.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { checkGrads, slopeAlong } from "../../testing/check_grads.ts";
import { evaluateOracle, fromOracle, type OracleTensor, runOracle } from "../../testing/oracle.ts";
import { randomTensor } from "../../testing/toy_models.ts";
import { drawInput, eachCase, primitiveCases } from "./primitive_cases.ts";

const byName = new Map<string, Primitive>(operations.map((prim) => [prim.name, prim]));

Deno.test("the registry has every primitive of core/ops, and every one of it has cases", async () => {
  const registered = new Set<unknown>([...leafPrimitives, ...operations, ...bodyPrimitives]);
  for await (const { name } of Deno.readDir(new URL("../../core/ops", import.meta.url))) {
    if (name.endsWith("_test.ts") || !name.endsWith(".ts")) continue;
    const exported: Record<string, unknown> = await import(new URL(`../../core/ops/${name}`, import.meta.url).href);
    for (const [key, value] of Object.entries(exported)) {
      if (key.endsWith("Prim")) assert(registered.has(value), `${key} of core/ops/${name} is not in core/registry.ts`);
    }
  }
  assertEquals([...byName.keys()].filter((name) => !(name in primitiveCases)), []);
  assertEquals(byName.size, operations.length, "two primitives of one name");
});

/** Which outputs of a primitive a derivative can be asked for, and whether any is. */
const floats = (values: readonly { dtype: OracleTensor["dtype"] }[]) => values.some((v) => v.dtype === "f32");

for (const { name, prim: primName, spec, data } of eachCase()) {
  const prim = byName.get(primName)!;
  const apply = (...values: Value[]) => [...bind(prim, values, spec.params)];

  Deno.test(`${name}: the shape rule says what is computed`, () => {
    const inputs = data.map((x) => newInput({ shape: x.shape, dtype: x.dtype }));
    const outputs = bind(prim, inputs, spec.params);
    const results = evaluateOracle({ inputs, outputs }, data);
    outputs.forEach((v, i) => {
      assertEquals(formatAval(v.aval), formatAval(results[i]));
      assertEquals(results[i].data.length, sizeOf(v.shape));
    });
  });

  const results = runOracle(apply, ...data) as OracleTensor[];
  const smooth = floats(data) && floats(results);
  if (smooth && prim.vjp !== "nondifferentiable") {
    Deno.test(`${name}: its gradient, and that of its gradient, are the numeric ones`, () => {
      checkGrads(apply, data, { order: 2 });
    });
  }
  if (smooth && prim.vjp === "nondifferentiable" && primName !== "stopGradient") {
    Deno.test(`${name}: what has no gradient does not change`, () => {
      const direction = data.map((x, i) => isFloat(x.dtype) ? fromOracle(randomTensor(x.shape, i + 1)).data : null);
      assertEquals(slopeAlong((v) => reduceSum(apply(...v)[0]), data, direction).slope, 0);
    });
  }

  Deno.test(`${name}: vmap is a loop, whichever inputs are mapped`, () => {
    const size = 3;
    const n = spec.inputs.length;
    for (let mask = 1; mask < 2 ** n; mask++) {
      const mapped = spec.inputs.map((_, i) => (mask >> i & 1) === 1);
      const each = Array.from(
        { length: size },
        (_, b) => spec.inputs.map((input, i) => drawInput(input, mapped[i] ? 50 + 7 * b + i : 40 + i)),
      );
      const stacked = spec.inputs.map(({ shape, dtype }, i): OracleTensor =>
        mapped[i]
          ? { shape: [size, ...shape], dtype, data: Float64Array.from(each.flatMap((one) => [...one[i].data])) }
          : each[0][i]
      );
      const run = () =>
        runOracle(vmap(apply, { inAxes: mapped.map((m) => m ? 0 : null) }), ...stacked) as OracleTensor[];
      if (spec.unmapped?.some((i) => mapped[i])) {
        assertThrows(run, Error, "vmap over the start");
        continue;
      }
      const loop = each.map((one) => runOracle(apply, ...one) as OracleTensor[]);
      run().forEach((out, k) => {
        assertEquals(out.shape, [size, ...loop[0][k].shape]);
        assertEquals([...out.data], loop.flatMap((one) => [...one[k].data]));
      });
    }
  });
}
