import { assert } from "@std/assert";
import { fmaPeak } from "./fma_peak.ts";

Deno.test("a benchmark's own code runs on threads like the device's", async () => {
  using peak = await fmaPeak(2);
  assert(peak.measure() > 0);
});
