import { assert, assertAlmostEquals, assertEquals, AssertionError, assertRejects, assertThrows } from "@std/assert";

Deno.test("assertions pass and fail as their names say", async () => {
  assertEquals(new Float32Array([1, 2]), new Float32Array([1, 2]));
  assertThrows(() => assertEquals([1, NaN], [1, 0]), AssertionError);
  assertThrows(() => assertEquals<unknown>(new Float32Array(1), new Int32Array(1)), AssertionError);
  assertAlmostEquals(1 + 1e-9, 1);
  assertThrows(() => assertAlmostEquals(NaN, 1), AssertionError);
  assertThrows(() => assertThrows(() => 1), AssertionError);
  assertThrows(() =>
    assertThrows(() => {
      throw new RangeError("two");
    }, TypeError), AssertionError);
  const error = await assertRejects(() => Promise.reject(new RangeError("three")), RangeError, "thr");
  assert(error instanceof RangeError);
});
