import { assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { parseConfig } from "./config.ts";

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
