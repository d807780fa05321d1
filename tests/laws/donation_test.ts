/** Donated memory is written, so a donated tensor may be nobody else's in the same call: every form of sharing is refused. */
import { assertEquals, assertThrows } from "@std/assert";
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { add, mul } from "../../core/ops/elementwise.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";

/** Ways to give one tensor twice, and what the sentence names. */
const shared: Record<string, { call: (t: Tensor, other: Tensor) => unknown; names: [string, string] }> = {
  "donated and passed": {
    call: (t) => jit((x: Value, y: Value) => add(x, y), { donate: [0] })(t, t),
    names: ["argument 0 and argument 1", "the first is donated"],
  },
  "passed and donated": {
    call: (t) => jit((x: Value, y: Value) => [add(x, 1), add(y, 2)], { donate: [1] })(t, t),
    names: ["argument 1 and argument 0", "the first is donated"],
  },
  "donated by two arguments": {
    call: (t) => jit((x: Value, y: Value) => [add(x, 1), add(y, 2)], { donate: [0, 1] })(t, t),
    names: ["argument 0 and argument 1", "both are donated"],
  },
  "twice in one donated argument": {
    call: (t, g) => {
      const step = jit((s: any, g: Value) => ({ m: add(s.m, g), v: add(s.v, mul(g, g)) }), { donate: [0] });
      return step({ m: t, v: t }, g);
    },
    names: ["argument 0.m and argument 0.v", "both are donated"],
  },
  "deep in a tree": {
    call: (t, g) => jit((s: any, p: any) => mul(s.a[1].w, p.w), { donate: [0] })({ a: [g, { w: t }] }, { w: t }),
    names: ["argument 0.a.1.w and argument 1.w", "the first is donated"],
  },
  "donated and mentioned": {
    call: (t) => jit((x: Value) => add(x, t), { donate: [0] })(t),
    names: ["argument 0 and a tensor that the function mentions", "the first is donated"],
  },
  "donated, unused and mentioned": {
    call: (t) => jit((_x: Value) => add(t, 1), { donate: [0] })(t),
    names: ["argument 0 and a tensor that the function mentions", "the first is donated"],
  },
  "a scalar": {
    call: (t, g) => {
      const rate = tensor(t.home, 2);
      try {
        return jit((s: Value, x: Value, r: Value) => [add(s, 1), mul(x, r)], { donate: [0] })(rate, g, rate);
      } finally {
        rate.dispose();
      }
    },
    names: ["argument 0 and argument 2", "the first is donated"],
  },
};

for (const device of devices) {
  for (const [form, { call, names }] of Object.entries(shared)) {
    Deno.test(`a tensor ${form} is refused by both names on ${device.name}, and nothing is lost`, async () => {
      using home = await device.open();
      const [t, other] = [tensor(home, [1, 2]), tensor(home, [3, 4])];
      const held = home.memory.current;
      for (let i = 0; i < 2; i++) {
        const { message } = assertThrows(() => call(t, other), OptionError);
        for (const name of names) assertEquals(message.includes(name), true, message);
      }
      assertEquals(home.memory.current, held);
      assertEquals((await read([t, other])).map((x: any) => [...x.data]), [[1, 2], [3, 4]]);
    });
  }

  Deno.test(`what shares nothing is donated on ${device.name}: equal tensors, numbers, a tensor passed twice`, async () => {
    using home = await device.open();
    const held = home.memory.current;
    const step = jit((s: any, g: Value, h: Value) => ({ m: add(s.m, g), v: add(s.v, h) }), { donate: [0] });
    const g = tensor(home, [3, 4]);
    const next = step({ m: tensor(home, [0, 0]), v: tensor(home, [0, 0]) }, g, g);
    assertEquals((await read([next.m, next.v], { release: true })).map((x: any) => [...x.data]), [[3, 4], [3, 4]]);
    // A number and a scalar tensor go through one program, and each one's memory is the result's.
    const count = jit((n: Value, x: Value) => [add(n, 1), add(x, n)], { donate: [0] });
    for (const [n, want] of [[tensor(home, 1), 2], [5, 6], [tensor(home, 7), 8]] as const) {
      const [m, y] = count(n, g);
      const kept = tensor(home, [9]);
      assertEquals((await read([m, y], { release: true }))[0], want);
      kept.dispose();
    }
    g.dispose();
    assertEquals(home.memory.current, held);
  });
}

Deno.test("invalid positions are refused", () => {
  assertThrows(() => jit((x: Value) => x, { donate: [-1] }), OptionError, "donate holds -1");
  assertThrows(() => jit((x: Value) => x, { static: [0.5] }), OptionError, "static holds 0.5");
  assertThrows(() => jit((x: Value) => x, { static: [0], donate: [0] }), OptionError, "both donated and static");
});
