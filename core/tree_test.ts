import { assertEquals, assertThrows } from "@std/assert";
import { LowrankError } from "./errors.ts";
import { Identities } from "./identity.ts";
import { flatten, mapTree } from "./tree.ts";

const tree = () => ({ a: [1, 2, { b: 3 }], c: "text", d: null, e: { f: [] as number[] } });

Deno.test("a tree is its leaves, their paths and its structure, and is put together again", () => {
  const flat = flatten<number>(tree());
  assertEquals(flat.leaves, [1, 2, 3]);
  assertEquals(flat.paths, ["a.0", "a.1", "a.2.b"]);
  const structure = '{ "a" [ * * { "b" * } ] "c" ="text" "d" =null "e" { "f" [ ] } }';
  assertEquals(flat.structure(new Identities()), structure);
  assertEquals(flat.unflatten([4, 5, 6]), { ...tree(), a: [4, 5, { b: 6 }] });
});

Deno.test("leavesOf gives the leaves of trees of the same structure only", () => {
  const flat = flatten<number>(tree());
  assertEquals(flat.leavesOf({ ...tree(), a: [7, 8, { b: 9 }] }), [7, 8, 9]);
  const others: unknown[] = [
    { ...tree(), a: [7, 8] },
    { ...tree(), a: [7, 8, { x: 9 }] },
    { ...tree(), a: [7, 8, { b: 9, x: 9 }] },
    { ...tree(), c: "other" },
    { ...tree(), c: 1 },
    { ...tree(), d: { toString: () => "null" } },
    { ...tree(), e: { f: [1] } },
    { ...tree(), e: new Map() },
    Object.fromEntries(Object.entries(tree()).reverse()),
    1,
    null,
  ];
  for (const other of others) assertEquals(flat.leavesOf(other), null);
});

Deno.test("what is no part of a tree is named with its place", () => {
  assertThrows(() => flatten({ a: [1, { b: new Map() }] }), LowrankError, 'at "a.1.b" there is a Map');
});

Deno.test("a tree that holds itself or is nested without end is a sentence; many leaves are not", () => {
  const self: Record<string, unknown> = { first: 1 };
  self.more = { self, last: 2 };
  assertThrows(() => flatten(self), LowrankError, `from "more.self.more.self" down: it holds itself`);
  let deep: unknown = 1;
  for (let i = 0; i < 10_000; i++) deep = [deep, 2];
  assertThrows(() => flatten(deep), LowrankError, "a tree has more than 500 levels");
  let allowed: unknown = 1;
  for (let i = 0; i < 500; i++) allowed = { allowed };
  assertEquals(flatten(allowed).leavesOf(mapTree(allowed, (x) => x)), [1]);
  const wide = flatten(Array.from({ length: 100_000 }, (_, i) => i));
  assertEquals(wide.paths.length, 100_000);
  assertEquals((wide.unflatten(wide.leaves) as unknown[]).length, 100_000);
});

Deno.test("what is no part of a tree is named with its place and what to do", () => {
  assertThrows(
    () => flatten({ a: [new Float32Array(2)] }),
    LowrankError,
    'at "a.0" there is a Float32Array: make a tensor',
  );
  assertThrows(() => flatten({ when: new Date() }), LowrankError, 'at "when" there is a Date');
  assertThrows(() => flatten(Promise.resolve(1)), LowrankError, "await it first");
});
