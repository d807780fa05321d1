import { assertAlmostEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { parseConfig } from "../load/config.ts";
import { readRotary } from "./rotary.ts";

Deno.test("rope frequencies of every type", () => {
  const rope = (parameters: Record<string, unknown>) => [
    ...readRotary(
      parseConfig({ model_type: "llama", rope_parameters: { rope_theta: 10000, ...parameters } }, "c"),
      8,
    ).frequencies as Float64Array,
  ];
  const plain = [1, 0.1, 0.01, 0.001];
  // The power, its reciprocal and what a type does to it are each rounded to f32.
  const assertNear = (got: number, want: number) => assertAlmostEquals(got, want, 3 * 2 ** -24 * want);
  rope({}).forEach((f, i) => assertNear(f, plain[i]));
  rope({ rope_type: "linear", factor: 4 }).forEach((f, i) => assertNear(f, plain[i] / 4));
  rope({ rope_type: "factors", factors: [1, 2, 3, 4] }).forEach((f, i) => assertNear(f, plain[i] / (i + 1)));
  // Context 200π: the four frequencies turn 100, 10, 1 and 0.1 times in it. Fewer than 1 turn is divided by the factor,
  // more than 10 kept.
  const llama3 = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 10,
    original_max_position_embeddings: 200 * Math.PI,
  };
  const expected = [1, 0.1, 0.01 / 8, 0.001 / 8];
  rope({ rope_type: "llama3", ...llama3 }).forEach((f, i) => assertNear(f, expected[i]));
  assertThrows(() => rope({ rope_type: "su" }), FileError, 'type "su"; supported: default, linear, dynamic, yarn');
  assertThrows(() => rope({ partial_rotary_factor: 0.5 }), FileError, "partial_rotary_factor is 0.5");
  assertThrows(() => rope({ rope_type: "llama3" }), FileError, "says factor of rope_parameters is undefined");
});
