/** Maps: strides, gathers, narrow dtypes, work in place. */
import { stridesOf } from "../../core/aval.ts";
import type { Expr } from "../../kernels/ir/expr.ts";
import type { Kernel } from "../../kernels/ir/kernel.ts";
import { at, axis, inout, type KernelCase, load, makeCase, number, op, put, read, write } from "./build.ts";

/** Maps of every kind of index. */
export function mapCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  const add = (name: string, kernel: Omit<Extract<Kernel, { kind: "map" }>, "kind">, ulp = 4, given = {}) =>
    cases.push(makeCase(`map ${name}`, { kind: "map", ...kernel }, ulp, given));
  for (const shape of [[0], [1], [3], [4], [1023], [5, 7], [2, 3, 8], [2, 0, 3], [1, 1]]) {
    const size = shape.reduce((a, b) => a * b, 1), s = at(stridesOf(shape));
    const sum = op("add", "f32", load(0, s), op("mul", "f32", load(1, at(shape.map(() => 0))), load(0, s)));
    add(`a + b a of [${shape}]`, { operands: [read(size), read(1), write(size)], shape, stores: [put(2, s, sum)] });
  }
  add("of no axes", {
    operands: [read(1), write(1)],
    shape: [],
    stores: [put(1, at([]), op("neg", "f32", load(0, at([]))))],
  });
  for (const n of [0, 1, 6, 8]) {
    add(`bias over rows [5,${n}]`, {
      operands: [inout(5 * n), read(n)],
      shape: [5, n],
      stores: [put(0, at([n, 1]), op("add", "f32", load(0, at([n, 1])), load(1, at([0, 1]))))],
    });
    add(`transpose [5,${n}]`, {
      operands: [read(5 * n), write(5 * n)],
      shape: [n, 5],
      stores: [put(1, at([5, 1]), load(0, at([1, n])))],
    });
    add(`slice and flip [3,${n}]`, {
      operands: [read(100), write(3 * n)],
      shape: [3, n],
      stores: [put(1, at([n, 1]), load(0, at([10, -1], 10 + n)))],
    });
    const row = { offset: 0, strides: [0, 1], dynamic: [{ value: load(1, at([1, 0]), "i32"), stride: n }] };
    add(
      `gather rows of ${n}`,
      {
        operands: [read(9 * n), read(4, "i32"), write(4 * n)],
        shape: [4, n],
        stores: [put(2, at([n, 1]), load(0, row))],
      },
      0,
      { 1: Int32Array.of(8, 0, 3, 3) },
    );
    const element = { offset: 0, strides: [n, 0], dynamic: [{ value: load(1, at([0, 1]), "i32"), stride: 1 }] };
    add(
      `gather columns of ${n}`,
      {
        operands: [read(3 * n), read(n, "i32"), write(3 * n)],
        shape: [3, n],
        stores: [put(2, at([n, 1]), load(0, element))],
      },
      0,
      { 1: Int32Array.from({ length: n }, (_, i) => (i * 5) % n) },
    );
    add(`axes of [3,${n}]`, {
      operands: [write(3 * n, "i32"), write(3 * n, "bool")],
      shape: [3, n],
      stores: [
        put(0, at([n, 1]), op("add", "i32", op("mul", "i32", axis(0), number(100, "i32")), axis(1))),
        put(1, at([n, 1]), op("le", "bool", axis(1), axis(0))),
      ],
    }, 0);
    const key = [number(7, "u32"), number(9, "u32"), op("convert", "u32", axis(1)), op("convert", "u32", axis(0))];
    const lane = (i: 0 | 1): Expr => ({ kind: "threefry", type: "u32", lane: i, args: key });
    add(`threefry [3,${n}]`, {
      operands: [write(3 * n, "u32"), write(3 * n, "u32")],
      shape: [3, n],
      stores: [put(0, at([n, 1]), lane(0)), put(1, at([n, 1]), lane(1))],
    }, 0);
    for (const dtype of ["f16", "bf16"] as const) {
      add(`load ${dtype} [3,${n}]`, {
        operands: [read(3 * n, dtype), write(3 * n)],
        shape: [3, n],
        stores: [put(1, at([n, 1]), load(0, at([n, 1])))],
      }, 0);
      add(`load ${dtype} transposed [3,${n}]`, {
        operands: [read(3 * n, dtype), write(3 * n)],
        shape: [n, 3],
        stores: [put(1, at([3, 1]), load(0, at([1, n])))],
      }, 0);
    }
  }
  const narrow = [
    0,
    1,
    -1.0004883,
    65504,
    65520,
    1e-7,
    6e-8,
    3e-5,
    3.05e-5,
    -0.3333,
    1e-9,
    2.9802322e-8,
    1.00048828125,
  ];
  for (const dtype of ["f16", "bf16"] as const) {
    add(
      `store ${dtype}`,
      {
        operands: [read(narrow.length), write(narrow.length, dtype)],
        shape: [narrow.length],
        stores: [put(1, at([1]), load(0, at([1])))],
      },
      0,
      { 0: Float32Array.from(narrow) },
    );
  }
  add("in place twice", {
    operands: [inout(12), inout(12), read(12)],
    shape: [12],
    stores: [
      put(0, at([1]), op("add", "f32", load(0, at([1])), load(2, at([1])))),
      put(1, at([1]), op("mul", "f32", load(0, at([1])), load(1, at([1])))),
    ],
  });
  add("of 2^16 + 5 points", {
    operands: [write(2 ** 16 + 5, "i32")],
    shape: [2 ** 16 + 5],
    stores: [put(0, at([1]), axis(0))],
  }, 0);
  return cases;
}
