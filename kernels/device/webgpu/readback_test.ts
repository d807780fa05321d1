import { assert, assertEquals } from "@std/assert";
import { readBack } from "./readback.ts";

/** Staging buffers that are mapped once all of them have been asked, but for those that fail, and what became of them. */
function staging(count: number, failing: readonly number[] = []) {
  let asked = 0;
  let open = () => {};
  const all = new Promise<void>((resolve) => open = resolve);
  const states = Array.from({ length: count }, () => ({ mapped: false, destroyed: false }));
  const buffers = states.map((state, i) => ({
    async mapAsync() {
      if (++asked === count) open();
      await all;
      if (failing.includes(i)) throw new Error(`buffer ${i} failed`);
      state.mapped = true;
    },
    getMappedRange() {
      assert(state.mapped, "a range that is taken before its map has resolved ends Deno");
      return Uint8Array.of(i).buffer;
    },
    destroy: () => void (state.destroyed = true),
  }));
  return { states, buffers: buffers as unknown as GPUBuffer[] };
}

Deno.test("all maps are asked for before one is waited for, and ranges are taken when they have resolved", async () => {
  const { states, buffers } = staging(3);
  const contents = await readBack(buffers);
  assert(!("failed" in contents));
  assertEquals(contents.map((bytes) => [...new Uint8Array(bytes)]), [[0], [1], [2]]);
  assertEquals(states, Array(3).fill({ mapped: true, destroyed: true }));
});

Deno.test("of maps that fail the first is reported, and every buffer ends", async () => {
  const { states, buffers } = staging(3, [1, 2]);
  const contents = await readBack(buffers);
  assert("failed" in contents);
  assertEquals((contents.failed as Error).message, "buffer 1 failed");
  assert(states.every(({ destroyed }) => destroyed));
});
