import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { parseConfig, ropeFrequencies } from "./config.ts";

Deno.test("the older spelling reads as the newer one", () => {
  const shared = { model_type: "llama", hidden_size: 64 };
  const scaling = { factor: 8, high_freq_factor: 4, low_freq_factor: 1, original_max_position_embeddings: 32 };
  const newer = parseConfig({
    ...shared,
    dtype: "bfloat16",
    rope_parameters: { rope_theta: 1e4, rope_type: "llama3", ...scaling },
  }, "c");
  for (const type of ["type", "rope_type"]) {
    const rope_scaling = { [type]: "llama3", ...scaling };
    const older = parseConfig({ ...shared, torch_dtype: "bfloat16", rope_theta: 1e4, rope_scaling }, "c");
    assertEquals(older.raw, newer.raw);
  }
  assertEquals(parseConfig({ ...shared, rope_theta: 1e5, rope_scaling: null }, "c").raw, {
    ...shared,
    rope_parameters: { rope_theta: 1e5, rope_type: "default" },
  });
});

Deno.test("keys are checked, null counts as absent", () => {
  const config = parseConfig({ model_type: "gpt2", n_layer: 2, n_inner: null, eps: "x", tied: 1 }, "config.json");
  assertEquals(config.integer("n_layer"), 2);
  assertEquals(config.integer("n_inner", 7), 7);
  assertEquals(config.flag("absent", true), true);
  assertThrows(() => config.integer("n_inner"), FileError, "config.json does not say n_inner");
  assertThrows(() => config.number("eps"), FileError, 'config.json says eps is "x", where a number is expected');
  assertThrows(() => config.flag("tied"), FileError, "where true or false is expected");
  assertThrows(() => parseConfig({}, "config.json"), FileError, "does not say model_type");
});

Deno.test("rope frequencies of every type", () => {
  const rope = (parameters: Record<string, unknown>) =>
    ropeFrequencies(
      parseConfig({ model_type: "llama", rope_parameters: { rope_theta: 10000, ...parameters } }, "c"),
      8,
    );
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
  assertThrows(() => rope({ rope_type: "yarn" }), FileError, 'type "yarn"; supported: default, linear, llama3.');
  assertThrows(() => rope({ partial_rotary_factor: 0.5 }), FileError, "partial_rotary_factor is 0.5");
  assertThrows(() => rope({ rope_type: "llama3" }), FileError, "says factor of rope_parameters is undefined");
});
