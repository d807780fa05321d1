import { assert, assertEquals } from "@std/assert";
import type { DType, ScalarType } from "../../core/dtype.ts";
import { fill, numbers, runKernel, worstError } from "../../testing/check_kernel.ts";
import { kernelCases } from "../../testing/kernel_cases.ts";
import { openCpu } from "../device/cpu/cpu.ts";
import type { Expr, Store } from "../ir/expr.ts";
import type { Kernel, Operand, ScalarOp } from "../ir/kernel.ts";
import { emit, emitKernel } from "./emit.ts";
import { schedule } from "./schedule.ts";

const operand = (dtype: DType, size: number, access: Operand["access"] = "read"): Operand => ({ dtype, size, access });
const load = (i: number, strides: number[], type: ScalarType = "f32", offset = 0): Expr => ({
  kind: "load",
  type,
  operand: i,
  index: { offset, strides },
});
const op = (name: ScalarOp, type: ScalarType, ...args: Expr[]): Expr => ({ kind: "op", type, op: name, args });
const constant = (value: number, type: ScalarType = "f32"): Expr => ({ kind: "const", type, value });
const axis = (i: number): Expr => ({ kind: "axis", type: "i32", axis: i });
const store = (i: number, strides: number[], value: Expr, offset = 0): Store => ({
  operand: i,
  index: { offset, strides },
  value,
});

/** Each kernel's worst error against the interpreter, with data drawn for its operands. */
async function check(kernel: Kernel, bound: number, adjust?: (data: ReturnType<typeof fill>[]) => void): Promise<void> {
  for (const relaxed of [undefined, false]) {
    using device = await openCpu({ threads: 1, relaxed });
    const next = numbers(kernel.operands.length);
    const data = kernel.operands.map((o) => fill(o, next));
    adjust?.(data);
    const error = await worstError(device, kernel, data);
    assert(error <= bound, `${kernel.kind}: error ${error} is over ${bound}`);
  }
}

Deno.test("map: contiguous, broadcast, transposed and offset accesses of every length", async () => {
  for (const [rows, cols] of [[1, 1], [3, 5], [7, 16], [4, 33], [130, 300]]) {
    const size = rows * cols;
    const kernel: Kernel = {
      kind: "map",
      operands: [operand("f32", size), operand("f32", cols), operand("f32", size + 1), operand("f32", size, "write")],
      shape: [rows, cols],
      stores: [store(
        3,
        [cols, 1],
        op("add", "f32", op("mul", "f32", load(0, [cols, 1]), load(1, [0, 1])), load(2, [1, rows], "f32", 1)),
      )],
    };
    await check(kernel, 2e-7);
  }
});

Deno.test("map: an f16, bf16, i32, u32 or bool operand is widened on load and narrowed on store", async () => {
  for (const dtype of ["f16", "bf16", "i32", "u32", "bool"] as const) {
    const type: ScalarType = dtype === "f16" || dtype === "bf16" ? "f32" : dtype;
    for (const stride of [1, 3]) {
      const kernel: Kernel = {
        kind: "map",
        operands: [operand(dtype, 90), operand(dtype, 90, "write"), operand("f32", 30, "write")],
        shape: [30],
        stores: [
          store(1, [stride], load(0, [stride], type)),
          store(2, [1], op("convert", "f32", load(0, [stride], type))),
        ],
      };
      await check(kernel, 0, (data) => data[1].fill(0));
    }
  }
});

Deno.test("map: every f16 and bf16 bit pattern survives, and every f32 rounds to the nearest", async () => {
  using device = await openCpu({ threads: 1 });
  for (const dtype of ["f16", "bf16"] as const) {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const widen: Kernel = {
      kind: "map",
      operands: [operand(dtype, 65536), operand("f32", 65536, "write"), operand(dtype, 65536, "write")],
      shape: [65536],
      stores: [store(1, [1], load(0, [1])), store(2, [1], load(0, [1]))],
    };
    assertEquals(await worstError(device, widen, [bits, new Float32Array(65536), new Uint16Array(65536)]), 0);
    const words = Uint32Array.from({ length: 65536 }, (_, i) => (i << 16) | ((i * 40503) & 0xffff));
    const narrow: Kernel = {
      kind: "map",
      operands: [operand("f32", 65536), operand(dtype, 65536, "write")],
      shape: [65536],
      stores: [store(1, [1], load(0, [1]))],
    };
    const inputs = [new Float32Array(words.buffer), new Uint16Array(65536)];
    assertEquals(await worstError(device, narrow, inputs), 0);
  }
});

Deno.test("map: integers, bools, select and axis counters", async () => {
  const x = load(0, [1], "i32"), y = load(1, [1], "i32");
  const u = op("bitcast", "u32", x);
  const made: [Expr, DType][] = [
    [op("div", "i32", x, y), "i32"],
    [op("rem", "i32", x, y), "i32"],
    [op("shl", "i32", x, op("and", "i32", y, constant(7, "i32"))), "i32"],
    [op("shr", "u32", u, constant(3, "u32")), "u32"],
    [op("max", "i32", x, y), "i32"],
    [op("select", "f32", op("lt", "bool", x, y), constant(1.5), op("convert", "f32", x)), "f32"],
    [op("and", "bool", op("le", "bool", x, y), op("not", "bool", op("eq", "bool", x, constant(3, "i32")))), "bool"],
    [op("add", "i32", op("mul", "i32", axis(0), constant(7, "i32")), axis(1)), "i32"],
    [op("sign", "i32", op("sub", "i32", x, y)), "i32"],
    [op("xor", "u32", u, constant(0xffffffff, "u32")), "u32"],
    [op("convert", "bool", x), "bool"],
  ];
  for (const [value, dtype] of made) {
    const at = (e: Expr): Expr =>
      e.kind === "load" ? load(e.operand, [9, 1], "i32") : e.kind === "op" ? { ...e, args: e.args.map(at) } : e;
    const kernel: Kernel = {
      kind: "map",
      operands: [operand("i32", 90), operand("i32", 90), operand(dtype, 90, "write")],
      shape: [10, 9],
      stores: [store(2, [9, 1], at(value))],
    };
    await check(kernel, 0, (data) => {
      data[0].set(data[0].map((x, i) => i % 3 === 0 ? -x : x));
      data[1].set(data[1].map((x) => x + 1));
    });
  }
});

Deno.test("map: dynamic indices gather and scatter by value", async () => {
  const row = load(0, [1, 0], "i32"), column = load(1, [0, 1], "i32");
  const gathered: Expr = {
    kind: "load",
    type: "f32",
    operand: 2,
    index: { offset: 0, strides: [0, 0], dynamic: [{ value: row, stride: 7 }, { value: column, stride: 1 }] },
  };
  const along: Expr = {
    kind: "load",
    type: "f32",
    operand: 2,
    index: { offset: 0, strides: [0, 1], dynamic: [{ value: row, stride: 7 }] },
  };
  const kernel: Kernel = {
    kind: "map",
    operands: [
      operand("i32", 5),
      operand("i32", 7),
      operand("f32", 77),
      operand("f32", 35, "write"),
      operand("f32", 77, "write"),
    ],
    shape: [5, 7],
    stores: [
      store(3, [7, 1], op("add", "f32", gathered, along)),
      {
        operand: 4,
        index: { offset: 0, strides: [0, 1], dynamic: [{ value: row, stride: 7 }] },
        value: op("mul", "f32", along, constant(3)),
      },
    ],
  };
  await check(kernel, 0, ([rows, columns, , , out]) => {
    rows.set([3, 9, 0, 10, 4]);
    columns.set([6, 2, 2, 0, 5, 1, 3]);
    out.fill(0);
  });
});

Deno.test("map: an inout operand is read before any store of its point", async () => {
  const x = load(0, [1]);
  const kernel: Kernel = {
    kind: "map",
    operands: [operand("f32", 21, "inout"), operand("f32", 21, "write")],
    shape: [21],
    stores: [store(0, [1], op("mul", "f32", x, constant(2))), store(1, [1], op("add", "f32", x, constant(1)))],
  };
  await check(kernel, 0);
});

Deno.test("map: threefry gives the published words", async () => {
  using device = await openCpu({ threads: 1 });
  const word = (lane: 0 | 1): Expr => ({
    kind: "threefry",
    type: "u32",
    lane,
    args: [0, 1, 2, 3].map((i) => load(i, [1], "u32")),
  });
  const inputs = Array.from({ length: 4 }, () => operand("u32", 3));
  const kernel: Kernel = {
    kind: "map",
    operands: [...inputs, operand("u32", 3, "write"), operand("u32", 3, "write")],
    shape: [3],
    stores: [store(4, [1], word(0)), store(5, [1], word(1))],
  };
  // The known answers of Random123: zeros, ones, and digits of π.
  const data = [[0, ~0, 0x13198a2e], [0, ~0, 0x03707344], [0, ~0, 0x243f6a88], [0, ~0, 0x85a308d3], [], []];
  const results = await runKernel(
    device,
    kernel,
    data.map((d) => Uint32Array.from({ length: 3 }, (_, i) => d[i] ?? 0)),
  );
  assertEquals([...results[4]], [0x6b200159, 0x1cb996fc, 0xc4923a9c]);
  assertEquals([...results[5]], [0x99ba4efe, 0xbb002be7, 0x483df7a0]);
});

Deno.test("row: softmax, argmax and sums along either axis", async () => {
  for (const [rows, cols] of [[3, 1], [5, 3], [4, 64], [9, 131], [70, 20]]) {
    const size = rows * cols;
    for (const strides of [[cols, 1], [1, rows]]) {
      const x = load(0, strides);
      const shifted = op("exp", "f32", op("sub", "f32", x, { kind: "result", type: "f32", phase: 0 }));
      const kernel: Kernel = {
        kind: "row",
        operands: [
          operand("f32", size),
          operand("f32", size, "write"),
          operand("i32", rows, "write"),
          operand("f32", rows, "write"),
        ],
        rows: [rows],
        cols,
        phases: [
          { kind: "reduce", op: "max", value: x },
          { kind: "reduce", op: "sum", value: shifted },
          { kind: "reduce", op: "argmax", value: op("abs", "f32", x) },
          {
            kind: "each",
            stores: [store(1, strides, op("div", "f32", shifted, { kind: "result", type: "f32", phase: 1 }))],
          },
          {
            kind: "once",
            stores: [
              store(2, [1, 0], { kind: "result", type: "i32", phase: 2 }),
              store(3, [1, 0], op("log", "f32", { kind: "result", type: "f32", phase: 1 })),
            ],
          },
        ],
      };
      await check(kernel, 1e-6);
    }
  }
});

Deno.test("row: argmax names the first of equals, and integers reduce exactly", async () => {
  const kernel: Kernel = {
    kind: "row",
    operands: [operand("i32", 200), operand("i32", 2, "write"), operand("i32", 2, "write"), operand("i32", 2, "write")],
    rows: [2],
    cols: 100,
    phases: [
      { kind: "reduce", op: "argmax", value: load(0, [100, 1], "i32") },
      { kind: "reduce", op: "sum", value: load(0, [100, 1], "i32") },
      { kind: "reduce", op: "min", value: load(0, [100, 1], "i32") },
      {
        kind: "once",
        stores: [0, 1, 2].map((phase) => store(phase + 1, [1, 0], { kind: "result", type: "i32", phase })),
      },
    ],
  };
  await check(kernel, 0, ([x]) => x.set(x.map((_, i) => i < 100 ? 7 : (i * 37) % 50 - 20)));
});

Deno.test("contract: any layout, batch, dtype and second segment, with an epilogue", async () => {
  const sizes = [[1, 1, 1], [3, 5, 7], [8, 16, 12], [13, 9, 66], [1, 40, 33], [50, 8, 8], [37, 70, 45]];
  for (const [m, k, n] of sizes) {
    for (const [aStrides, bStrides] of [[[k, 1], [n, 1]], [[1, m], [1, k]], [[k, 1], [1, k]], [[1, m], [n, 1]]]) {
      for (const dtype of ["f32", "f16", "bf16"] as const) {
        const r = 3;
        const kernel: Kernel = {
          kind: "contract",
          operands: [
            operand("f32", 2 * m * k),
            operand(dtype, k * n),
            operand("f32", 2 * m * r),
            operand("f32", r * n),
            operand("f32", n),
            operand("f32", 2 * m * n, "write"),
          ],
          batch: [2],
          m,
          n,
          segments: [
            {
              k,
              a: { operand: 0, index: { offset: 0, strides: [m * k, ...aStrides] } },
              b: { operand: 1, index: { offset: 0, strides: [0, ...bStrides] } },
            },
            {
              k: r,
              a: { operand: 2, index: { offset: 0, strides: [m * r, r, 1] } },
              b: { operand: 3, index: { offset: 0, strides: [0, 1, r] } },
            },
          ],
          stores: [store(
            5,
            [m * n, n, 1],
            op(
              "max",
              "f32",
              op("add", "f32", { kind: "result", type: "f32", phase: 0 }, load(4, [0, 0, 1])),
              constant(-0.5),
            ),
          )],
        };
        await check(kernel, 2e-6);
      }
    }
  }
});

Deno.test("scatter: sums in order, drops what lies outside", async () => {
  for (const cols of [1, 4, 13]) {
    const kernel: Kernel = {
      kind: "scatter",
      operands: [operand("i32", 40), operand("f32", 40 * cols), operand("f32", 70 * cols, "write")],
      count: 40,
      cols,
      targets: 70,
    };
    await check(kernel, 1e-6, ([indices]) => indices.set(indices.map((x, i) => i % 7 === 0 ? x - 60 : x)));
  }
});

Deno.test("a kernel and a copy of its schedule give the same module", () => {
  for (const { name, kernel } of kernelCases()) {
    for (const blasFrom of [null, 0]) {
      const options = { shared: true, relaxed: true, blasFrom };
      const copied = structuredClone(schedule(kernel, options));
      assertEquals(copied.kind, kernel.kind);
      assertEquals(emit(kernel, copied, options), emitKernel(kernel, options), name);
    }
  }
});
