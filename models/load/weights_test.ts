import { assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { checkWeights, matchName, type WeightSource } from "./weights.ts";

function source(shapes: Record<string, number[]>): WeightSource {
  return {
    path: "m.safetensors",
    names: Object.keys(shapes),
    entry: (name) => ({
      shape: shapes[name],
      ...(name === "e" ? { dtype: "i32", stored: "I8" } : { dtype: "bf16", stored: "BF16" }),
      bytes: 0,
    }),
    read: () => {
      throw new Error("nothing is read here");
    },
    [Symbol.dispose]: () => {},
  };
}

Deno.test("weights are found under any wrapper's prefix", () => {
  for (const prefix of ["", "transformer.", "model."]) {
    const found = checkWeights(new Map([["h.0.ln_1.weight", [4]]]), source({ [`${prefix}h.0.ln_1.weight`]: [4] }));
    assertEquals(found.get("h.0.ln_1.weight"), `${prefix}h.0.ln_1.weight`);
  }
  assertEquals(matchName("model.norm.weight", new Set(["norm.weight"])), "norm.weight");
  assertEquals(matchName("transformer.wte", new Set(["model.wte"])), "model.wte");
  assertEquals(matchName("wte", new Set(["wpe"])), null);
});

Deno.test("missing, wrong-shape and unexpected weights are listed together", () => {
  const expected = new Map([["a", [2, 3]], ["b", [4]], ["c", [5]], ["e", [1]]]);
  const given = source({ a: [3, 2], c: [5], d: [1], e: [1], "h.0.attn.bias": [1, 1, 8, 8] });
  const error = assertThrows(() => checkWeights(expected, given, [/\.attn\.bias$/]), FileError);
  assertEquals(
    error.message,
    "The weights in m.safetensors do not fit its configuration. Missing (1): b. " +
      "Of the wrong shape (1): a is [3,2], expected [2,3]. Not of a float type that is read (1): e is I8. Unexpected (1): d. " +
      "Use the weights and config.json of the same model.",
  );
});
