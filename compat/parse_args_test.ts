import { assertEquals } from "@std/assert";
import { parseArgs } from "./parse_args.ts";

Deno.test("the stand-in reads arguments as the original documents", () => {
  assertEquals(parseArgs(["--foo", "--bar=baz", "./quux.txt"]), { foo: true, bar: "baz", _: ["./quux.txt"] });
  assertEquals(parseArgs(["-abc", "1", "-x=2"]), { a: true, b: true, c: 1, x: 2, _: [] });
  assertEquals(parseArgs(["--n", "1", "--s", "1", "2"], { string: ["s"] }), { n: 1, s: "1", _: [2] });
  assertEquals(parseArgs(["--on", "x"], { boolean: ["on", "off"] }), { on: true, off: false, _: ["x"] });
  assertEquals(parseArgs(["--no-on"], { boolean: ["on"], negatable: ["on"] }), { on: false, _: [] });
  assertEquals(parseArgs(["--s"], { string: ["s"] }), { s: "", _: [] });
  assertEquals(parseArgs(["--lr", "-1"], { string: ["lr"] }), { lr: "", 1: true, _: [] });
  assertEquals(parseArgs(["--lr=-1"], { string: ["lr"] }), { lr: "-1", _: [] });
  assertEquals(parseArgs(["--on", "true", "--off", "false"], { boolean: ["on", "off"] }), {
    on: true,
    off: false,
    _: [],
  });
  assertEquals(parseArgs(["--t", "a", "--t", "b"], { string: ["t", "u"], collect: ["t", "u"] }), {
    t: ["a", "b"],
    u: [],
    _: [],
  });
  assertEquals(parseArgs(["a", "--", "--b"]), { _: ["a", "--b"] });
  assertEquals(parseArgs([], { default: { a: 1 }, boolean: ["b"] }), { a: 1, b: false, _: [] });
});

Deno.test("what is not declared is reported, and left out where the answer is false", () => {
  const told: unknown[] = [];
  const unknown = (...all: unknown[]) => {
    told.push(all);
    return false;
  };
  assertEquals(parseArgs(["--x=1", "word", "--y"], { boolean: ["y"], unknown }), { y: true, _: [] });
  assertEquals(told, [["--x=1", "x", "1"], ["word"]]);
});
