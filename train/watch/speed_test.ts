import { assertEquals } from "@std/assert";
import { speedMeter } from "./speed.ts";

Deno.test("a rate over too short a time is not shown", () => {
  let time = 0;
  const speed = speedMeter(100, () => time);
  const rates = [0, 5, 100, 200, 300, 1000].map((at, i) => {
    time = at;
    return speed.note(i + 1, 3 * (i + 1)).tokensPerSecond;
  });
  assertEquals(rates, [null, null, null, null, 12 / 0.3, 15]);
});
