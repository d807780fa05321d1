import { assertEquals } from "@std/assert";
import { Reclaimer } from "./reclaimer.ts";

Deno.test("a system that has no buffers to give is no error: what can't be pressed is read all the same", async () => {
  const device = { memory: { current: 2 ** 30, peak: 2 ** 30 }, capacity: undefined };
  const given = globalThis.ArrayBuffer;
  globalThis.ArrayBuffer = class {
    constructor() {
      throw new RangeError("Array buffer allocation failed");
    }
  } as unknown as typeof ArrayBuffer;
  try {
    const reclaimer = new Reclaimer(device);
    assertEquals(reclaimer.press(), []);
    await reclaimer.collect();
  } finally {
    globalThis.ArrayBuffer = given;
  }
});
