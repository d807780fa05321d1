import { assertEquals, assertThrows } from "@std/assert";
import { LowrankError } from "./errors.ts";
import { newInput } from "./ir/graph.ts";
import { full } from "./ops/broadcast.ts";
import { oracleTensor } from "../testing/oracle.ts";

/** An array where a program's author takes it for a JavaScript value. */
const misuses: Readonly<Record<string, (x: any) => unknown>> = {
  "x + 1": (x) => x + 1,
  "1 - x": (x) => 1 - x,
  "-x": (x) => -x,
  "x > 0": (x) => x > 0,
  "i < x": (x) => {
    for (let i = 0; i < x; i++);
  },
  "x == 1": (x) => x == 1,
  "Math.max(x, 1)": (x) => Math.max(x, 1),
  "Number(x)": (x) => Number(x),
  "BigInt(x)": (x) => BigInt(x),
  "isNaN(x)": (x) => isNaN(x),
  "`${x}`": (x) => `${x}`,
  "[1, 2][x]": (x) => [1, 2][x],
  "({ [x]: 1 })": (x) => ({ [x]: 1 }),
  "new Array(3).fill(0)[x]": (x) => new Array(3).fill(0)[x],
  "Array.from({ length: x })": (x) => Array.from({ length: x }),
  "[1, 2].slice(x)": (x) => [1, 2].slice(x),
  "[x].join()": (x) => [x].join(),
  "new Date(x)": (x) => new Date(x),
  "JSON.stringify(x)": (x) => JSON.stringify(x),
  "JSON.stringify({ loss: x })": (x) => JSON.stringify({ loss: x }),
  "x[0]": (x) => x[0],
  "x.at(-1)": (x) => x["-1"],
  "x.length": (x) => x.length,
  "[...x]": (x) => [...x],
  "const [a, b] = x": (x) => {
    const [a, b] = x;
    return [a, b];
  },
  "for (const row of x)": (x) => {
    for (const _ of x);
  },
  "Array.from(x)": (x) => Array.from(x),
  "new Float32Array(x)": (x) => new Float32Array(x),
  "Math.max(...x)": (x) => Math.max(...x),
};

const arrays = {
  "an argument": { x: newInput({ shape: [2], dtype: "f32" }, "n"), remedy: "jit's static arguments" },
  "a value": { x: full([2], 1), remedy: "await evaluate(x)" },
  "a tensor": { x: oracleTensor([2], [1, 2]), remedy: "await read(x)" },
};

for (const [what, { x, remedy }] of Object.entries(arrays)) {
  Deno.test(`${what} is no JavaScript value: a sentence, and not NaN, undefined or a text`, () => {
    for (const [name, misuse] of Object.entries(misuses)) {
      const { message } = assertThrows(() => misuse(x), LowrankError, "was asked by JavaScript for", name);
      assertEquals([remedy, "take parts with slice"].some((remedy) => message.includes(remedy)), true, message);
      assertEquals(message.startsWith(x.toString()), true, message);
    }
  });

  Deno.test(`${what} prints, is awaited and compared as any object`, async () => {
    assertEquals(typeof x.toString(), "string");
    assertEquals(Deno.inspect([x]).includes("f32[2]"), true);
    assertEquals(await x === x, true);
    assertEquals([x].includes(x as never), true);
    assertEquals(x instanceof Object, true);
    assertEquals((x as any).nothing, undefined);
    assertEquals([].concat(x as never), [x] as never);
  });
}
