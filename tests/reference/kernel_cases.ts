/**
 * One table of kernels that every back end must compute as `interpretKernel` does: `tests/laws/kernels_test.ts` runs
 * all of them on all devices. Each case is small, and shaped to meet one edge.
 */
import { sizeOf, stridesOf } from "../../core/aval.ts";
import { type DType, type HostArray, hostArray, toBf16, toF16 } from "../../core/dtype.ts";
import type { AttentionKernel, Expr, Index, Kernel, Operand, ScalarOp, Store } from "../../kernels/kernel.ts";

/** A kernel with its inputs; write operands are given as they are before the run. */
export interface KernelCase {
  readonly name: string;
  readonly kernel: Kernel;
  readonly buffers: readonly HostArray[];
  /** Worst relative error, against the largest term, in units of 2^-24: the length of the sums, or a table's ulp. */
  readonly ulp: number;
}

/** Deterministic numbers in [-1, 1). */
export function noise(seed: number): () => number {
  let state = seed * 2654435761 >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 31 - 1;
  };
}

/** `size` random elements of a dtype: floats in [-scale, scale), integers in [0, scale). */
export function randomArray(dtype: DType, size: number, seed: number, scale = dtype === "f32" ? 1 : 2): HostArray {
  const next = noise(seed);
  const array = hostArray(dtype, size);
  for (let i = 0; i < size; i++) {
    const x = next();
    if (dtype === "f16") array[i] = toF16(x);
    else if (dtype === "bf16") array[i] = toBf16(x);
    else array[i] = dtype === "f32" ? x * scale : Math.floor((x + 1) / 2 * scale);
  }
  return array;
}

const read = (size: number, dtype: DType = "f32"): Operand => ({ dtype, size, access: "read" });
const write = (size: number, dtype: DType = "f32"): Operand => ({ dtype, size, access: "write" });
const inout = (size: number, dtype: DType = "f32"): Operand => ({ dtype, size, access: "inout" });
const at = (strides: readonly number[], offset = 0): Index => ({ offset, strides });
const load = (operand: number, index: Index, type: Expr["type"] = "f32"): Expr =>
  ({ kind: "load", type, operand, index }) as Expr;
const op = (name: ScalarOp, type: Expr["type"], ...args: Expr[]): Expr =>
  ({ kind: "op", type, op: name, args }) as Expr;
const number = (value: number, type: Expr["type"] = "f32"): Expr => ({ kind: "const", type, value }) as Expr;
const axis = (i: number): Expr => ({ kind: "axis", type: "i32", axis: i });
const result = (phase: number, type: Expr["type"] = "f32"): Expr => ({ kind: "result", type, phase }) as Expr;
const put = (operand: number, index: Index, value: Expr): Store => ({ operand, index, value });

/** The inputs of a kernel: random reads, writes filled with a value that must not survive. */
function fill(kernel: Kernel, seed: number, given: Record<number, HostArray> = {}): HostArray[] {
  return kernel.operands.map(({ dtype, size, access }, i) =>
    given[i] ?? (access === "write" ? hostArray(dtype, size).fill(99) : randomArray(dtype, size, seed * 31 + i + 1))
  );
}

function makeCase(name: string, kernel: Kernel, ulp: number, given: Record<number, HostArray> = {}): KernelCase {
  return { name, kernel, ulp, buffers: fill(kernel, name.length + kernel.operands.length, given) };
}

/** An elementwise function of one operand over given inputs. */
function unary(name: string, inputs: readonly number[], ulp: number, type: Expr["type"], make: (x: Expr) => Expr) {
  const size = inputs.length;
  const value = make(load(0, at([1]), type));
  const kernel: Kernel = {
    kind: "map",
    operands: [read(size, type), write(size, value.type)],
    shape: [size],
    stores: [put(1, at([1]), value)],
  };
  return makeCase(name, kernel, ulp, { 0: hostArray(type, size).map((_, i) => inputs[i]) as HostArray });
}

const range = (from: number, to: number, count: number) =>
  Array.from({ length: count }, (_, i) => from + (to - from) * i / (count - 1));

function scalarCases(): KernelCase[] {
  const f = (name: ScalarOp, inputs: number[], ulp = 4) =>
    unary(`scalar ${name}`, inputs, ulp, "f32", (x) => op(name, "f32", x));
  const wide = [...range(-40, 40, 41), 0, 1e-6, -1e-6, 3e4, -3e4];
  const cases = [
    f("neg", wide, 0),
    f("abs", wide, 0),
    f("sign", wide, 0),
    f("floor", wide, 0),
    // What WGSL promises for exp is 3 + 2|x| ulp.
    f("exp", range(-80, 80, 67), 163),
    f("log", [...range(0.01, 3, 50), 1e-30, 1e30]),
    f("sqrt", range(0, 100, 37)),
    f("rsqrt", range(0.01, 100, 37)),
    f("recip", [...range(0.1, 9, 37), -3]),
    f("tanh", [...range(-5, 5, 61), 1e4, -1e4, 88.8, 1e-4], 8),
    f("erf", [...range(-5, 5, 61), 1e4, -1e4, 1e-4], 8),
    f("sin", [...range(-7, 7, 61), 1000.5, -8191.25, 30000], 8),
    f("cos", [...range(-7, 7, 61), 1000.5, -8191.25, 30000], 8),
  ];
  const odd = [0, 1.5, -1.5, 1e38, -1e38, Infinity, -Infinity, NaN, 3e9, -3e9];
  cases.push(unary("scalar isFinite", odd, 0, "f32", (x) => op("isFinite", "bool", x)));
  cases.push(unary("scalar ne finds NaN", odd, 0, "f32", (x) => op("ne", "bool", x, x)));
  const finite = [0, 0.5, -0.5, 1.99, -1.99, 3e9, -3e9, 5e9, 2147483520, 7];
  for (const type of ["i32", "u32", "bool"] as const) {
    cases.push(unary(`scalar convert f32 to ${type}`, finite, 0, "f32", (x) => op("convert", type, x)));
  }
  const whole = [0, 1, 2, 7, 31, 1000, 65536, 2147483647];
  for (const type of ["i32", "u32"] as const) {
    const integers = type === "i32" ? [...whole, -1, -7, -2147483648] : [...whole, 4294967295];
    for (const name of ["not", "neg", "abs", "sign"] as const) {
      cases.push(unary(`scalar ${name} ${type}`, integers, 0, type, (x) => op(name, type, x)));
    }
    for (const name of ["add", "sub", "mul", "div", "rem", "max", "min", "and", "or", "xor"] as const) {
      cases.push(unary(`scalar ${name} ${type}`, integers, 0, type, (x) => op(name, type, x, number(7, type))));
    }
    for (const name of ["shl", "shr"] as const) {
      cases.push(unary(`scalar ${name} ${type}`, integers, 0, type, (x) => op(name, type, x, number(5, type))));
    }
    cases.push(unary(`scalar convert ${type} to f32`, integers, 1, type, (x) => op("convert", "f32", x)));
    cases.push(
      unary(`scalar bitcast ${type}`, integers, 0, type, (x) => op("bitcast", type === "i32" ? "u32" : "i32", x)),
    );
  }
  cases.push(unary("scalar bitcast f32", finite, 0, "f32", (x) => op("bitcast", "u32", x)));
  // x - y * trunc(x / y) is as exact as x, which is up to 40.
  cases.push(unary("scalar rem f32", range(-40, 40, 41), 160, "f32", (x) => op("rem", "f32", x, number(0.7))));
  for (const name of ["add", "sub", "mul", "div", "max", "min"] as const) {
    cases.push(unary(`scalar ${name} f32`, wide, 4, "f32", (x) => op(name, "f32", x, number(0.7))));
  }
  for (const name of ["eq", "ne", "lt", "le", "gt", "ge"] as const) {
    cases.push(unary(`scalar ${name}`, wide, 0, "f32", (x) => op(name, "bool", x, number(0))));
  }
  for (const y of [2, 3, 0.5, -1, -1.5]) {
    cases.push(unary(`scalar pow ${y}`, range(0.1, 9, 40), 64, "f32", (x) => op("pow", "f32", x, number(y))));
  }
  cases.push(unary("scalar pow of negatives", range(-3, -0.5, 20), 64, "f32", (x) => op("pow", "f32", x, number(3))));
  cases.push(unary("scalar pow beta^t", [1, 2, 10, 100, 1000], 64, "f32", (x) => op("pow", "f32", number(0.999), x)));
  const select = (x: Expr) =>
    op(
      "select",
      "f32",
      op("and", "bool", op("gt", "bool", x, number(-2)), op("not", "bool", op("gt", "bool", x, number(2)))),
      x,
      number(5),
    );
  cases.push(unary("scalar select", wide, 0, "f32", select));
  cases.push(
    unary("scalar constants", [0, 1, 2, 3], 0, "f32", (x) =>
      op(
        "select",
        "f32",
        op("lt", "bool", x, number(1)),
        number(Infinity),
        op("select", "f32", op("lt", "bool", x, number(2)), number(-3.4028234663852886e38), number(0.1)),
      )),
  );
  return cases;
}

function mapCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  const add = (name: string, kernel: Omit<Extract<Kernel, { kind: "map" }>, "kind">, ulp = 4, given = {}) =>
    cases.push(makeCase(`map ${name}`, { kind: "map", ...kernel }, ulp, given));
  for (const shape of [[1], [3], [4], [1023], [5, 7], [2, 3, 8]]) {
    const size = shape.reduce((a, b) => a * b, 1), s = at(stridesOf(shape));
    const sum = op("add", "f32", load(0, s), op("mul", "f32", load(1, at(shape.map(() => 0))), load(0, s)));
    add(`a + b a of [${shape}]`, { operands: [read(size), read(1), write(size)], shape, stores: [put(2, s, sum)] });
  }
  add("of no axes", {
    operands: [read(1), write(1)],
    shape: [],
    stores: [put(1, at([]), op("neg", "f32", load(0, at([]))))],
  });
  for (const n of [6, 8]) {
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
  add("of 2^22 + 5 points", {
    operands: [write(2 ** 22 + 5, "i32")],
    shape: [2 ** 22 + 5],
    stores: [put(0, at([1]), axis(0))],
  }, 0);
  return cases;
}

function rowCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  for (const [rows, cols] of [[[5], 7], [[2, 3], 64], [[1], 1000], [[67], 1]] as const) {
    const count = sizeOf(rows);
    const whole = at([...stridesOf(rows).map((s) => s * cols), 1]);
    const one = at([...stridesOf(rows), 0]);
    const x = load(0, whole);
    const shifted = op("exp", "f32", op("sub", "f32", x, result(0)));
    cases.push(makeCase(`row softmax [${rows};${cols}]`, {
      kind: "row",
      operands: [read(count * cols), write(count * cols), write(count)],
      rows,
      cols,
      phases: [
        { kind: "reduce", op: "max", value: x },
        { kind: "reduce", op: "sum", value: shifted },
        { kind: "each", stores: [put(1, whole, op("div", "f32", shifted, result(1)))] },
        { kind: "once", stores: [put(2, one, op("add", "f32", result(0), op("log", "f32", result(1))))] },
      ],
    }, 2 * cols + 16));
    cases.push(makeCase(`row argmax and min [${rows};${cols}]`, {
      kind: "row",
      operands: [read(count * cols), write(count, "i32"), write(count)],
      rows,
      cols,
      phases: [
        { kind: "reduce", op: "argmax", value: op("floor", "f32", op("mul", "f32", x, number(3))) },
        { kind: "reduce", op: "min", value: x },
        { kind: "once", stores: [put(1, one, result(0, "i32")), put(2, one, result(1))] },
      ],
    }, 0));
  }
  cases.push(makeCase("row sum of columns", {
    kind: "row",
    operands: [read(6 * 10), inout(10)],
    rows: [10],
    cols: 6,
    phases: [
      { kind: "reduce", op: "sum", value: load(0, at([1, 10])) },
      { kind: "once", stores: [put(1, at([1, 0]), op("add", "f32", load(1, at([1, 0])), result(0)))] },
    ],
  }, 10));
  cases.push(makeCase("row sums of integers", {
    kind: "row",
    operands: [read(90, "i32"), write(3, "i32"), write(3, "i32")],
    rows: [3],
    cols: 30,
    phases: [
      { kind: "reduce", op: "sum", value: load(0, at([30, 1]), "i32") },
      { kind: "reduce", op: "max", value: op("mul", "i32", load(0, at([30, 1]), "i32"), axis(1)) },
      { kind: "once", stores: [put(1, at([1, 0]), result(0, "i32")), put(2, at([1, 0]), result(1, "i32"))] },
    ],
  }, 0));
  cases.push(makeCase("row argmax of -Infinity", {
    kind: "row",
    operands: [read(70), write(1, "i32")],
    rows: [1],
    cols: 70,
    phases: [
      { kind: "reduce", op: "argmax", value: number(-Infinity) },
      { kind: "once", stores: [put(1, at([1, 0]), result(0, "i32"))] },
    ],
  }, 0));
  return cases;
}

/** A product of stored matrices; `layout` says for a, then b, whether it is stored as written (N) or transposed (T). */
export function matmulKernel(
  [m, k, n]: readonly [number, number, number],
  layout: "NN" | "NT" | "TN" | "TT" = "NN",
  { batch = [], shared = false, lowRank = 0, dtype = "f32", bias = false }: {
    batch?: readonly number[];
    /** b is one matrix for all batches. */
    shared?: boolean;
    lowRank?: number;
    dtype?: DType;
    bias?: boolean;
  } = {},
): Extract<Kernel, { kind: "contract" }> {
  const count = batch.reduce((x, y) => x * y, 1);
  const over = (size: number) => stridesOf(batch).map((s) => s * size);
  const a = at([...over(m * k), ...(layout[0] === "N" ? [k, 1] : [1, m])]);
  const b = at([...(shared ? batch.map(() => 0) : over(k * n)), ...(layout[1] === "N" ? [n, 1] : [1, k])]);
  const out = at([...over(m * n), n, 1]);
  const operands = [read(count * m * k), read((shared ? 1 : count) * k * n, dtype), write(count * m * n)];
  const segments = [{ k, a: { operand: 0, index: a }, b: { operand: 1, index: b } }];
  if (lowRank > 0) {
    operands.push(read(count * m * lowRank), read(lowRank * n));
    segments.push({
      k: lowRank,
      a: { operand: 3, index: at([...over(m * lowRank), lowRank, 1]) },
      b: { operand: 4, index: at([...batch.map(() => 0), ...(layout[1] === "N" ? [n, 1] : [1, lowRank])]) },
    });
  }
  let value: Expr = result(0);
  if (bias) {
    value = op("add", "f32", value, load(operands.length, at([...batch.map(() => 0), 0, 1])));
    operands.push(read(n));
  }
  return { kind: "contract", operands, batch, m, n, segments, stores: [put(2, out, value)] };
}

function contractCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  const add = (name: string, kernel: Extract<Kernel, { kind: "contract" }>) =>
    cases.push(makeCase(`contract ${name}`, kernel, kernel.segments.reduce((sum, s) => sum + s.k, 4)));
  for (const layout of ["NN", "NT", "TN", "TT"] as const) {
    for (const [m, k, n] of [[16, 16, 32], [7, 5, 9], [33, 70, 36], [1, 48, 40], [65, 12, 130]] as const) {
      add(`${layout} ${m}x${k}x${n}`, matmulKernel([m, k, n], layout));
    }
    add(`${layout} with a low-rank segment`, matmulKernel([20, 24, 28], layout, { lowRank: 8, bias: true }));
    add(`${layout} with a rank-3 segment`, matmulKernel([6, 10, 11], layout, { lowRank: 3, bias: true }));
    add(`${layout} of many tiles`, matmulKernel([262, 20, 264], layout, { lowRank: 4, bias: true }));
    add(`${layout} batched`, matmulKernel([12, 8, 20], layout, { batch: [2, 3] }));
    add(`${layout} with b shared`, matmulKernel([5, 8, 12], layout, { batch: [3], shared: true }));
    for (const dtype of ["f16", "bf16"] as const) {
      add(`${layout} ${dtype}`, matmulKernel([9, 16, 24], layout, { dtype }));
      add(`${layout} ${dtype} odd`, matmulKernel([9, 7, 11], layout, { dtype }));
      add(`${layout} ${dtype} M = 1`, matmulKernel([1, 64, 72], layout, { dtype }));
    }
  }
  const heads: Extract<Kernel, { kind: "contract" }> = {
    kind: "contract",
    operands: [read(2 * 10 * 36), write(2 * 3 * 10 * 10)],
    batch: [2, 3],
    m: 10,
    n: 10,
    segments: [{
      k: 4,
      a: { operand: 0, index: at([360, 4, 36, 1]) },
      b: { operand: 0, index: at([360, 4, 1, 36], 12) },
    }],
    stores: [
      put(
        1,
        at([300, 100, 10, 1]),
        op(
          "select",
          "f32",
          op("le", "bool", axis(3), axis(2)),
          op("mul", "f32", result(0), number(0.5)),
          number(-3.4e38),
        ),
      ),
    ],
  };
  add("of heads, masked", heads);
  const plain = matmulKernel([8, 8, 8]);
  add("twice, in place and into a second", {
    ...plain,
    operands: [...plain.operands.slice(0, 2), inout(64), write(64)],
    stores: [
      put(2, at([8, 1]), op("add", "f32", load(2, at([8, 1])), result(0))),
      put(3, at([1, 8]), op("max", "f32", result(0), number(0))),
    ],
  });
  const cached = { offset: 0, strides: [6, 1], dynamic: [{ value: load(3, at([0, 0]), "i32"), stride: 6 }] };
  cases.push(makeCase(
    "contract with an operand at a moving place",
    {
      ...matmulKernel([4, 4, 6]),
      operands: [read(16), read(60), write(24), read(1, "i32")],
      segments: [{ k: 4, a: { operand: 0, index: at([4, 1]) }, b: { operand: 1, index: cached } }],
    },
    8,
    { 3: Int32Array.of(5) },
  ));
  return cases;
}

function scatterCases(): KernelCase[] {
  return ([[5, 3, 7], [40, 130, 6], [1, 4, 1]] as const).map(([count, cols, targets]) =>
    makeCase(
      `scatter [${count},${cols}] to ${targets}`,
      {
        kind: "scatter",
        operands: [read(count, "i32"), read(count * cols), write(targets * cols)],
        count,
        cols,
        targets,
      },
      count,
      { 0: Int32Array.from({ length: count }, (_, i) => i === 2 ? -1 : i === 4 ? targets : (i * i) % targets) },
    )
  );
}

/** Attention over packed q, k, v rows of one [batch, token, 3 x heads x width] projection. */
export function attentionKernel(
  pass: AttentionKernel["pass"],
  { batch, heads, kvHeads, queries, keys, width, causal }: {
    batch: number;
    heads: number;
    kvHeads: number;
    queries: number;
    keys: number;
    width: number;
    causal: boolean;
  },
): AttentionKernel {
  const layout = (tokens: number, h: number) => ({
    offset: 0,
    batch: tokens * h * width,
    token: h * width,
    head: width,
  });
  const [q, kv] = [layout(queries, heads), layout(keys, kvHeads)];
  const sizes = {
    q: batch * queries * heads * width,
    kv: batch * keys * kvHeads * width,
    row: batch * heads * queries,
  };
  const inputs = [read(sizes.q), read(sizes.kv), read(sizes.kv), read(batch * keys, "bool"), read(1, "i32")];
  const backward = [...inputs, read(sizes.q), read(sizes.row), read(sizes.row)];
  const common = { kind: "attention", pass, batch, heads, kvHeads, queries, keys, width, causal } as const;
  const scale = 1 / Math.sqrt(width);
  if (pass === "forward") {
    return {
      ...common,
      scale,
      operands: [...inputs, write(sizes.q), write(sizes.row)],
      layouts: [q, kv, kv, null, null, q, null],
    };
  }
  const layouts = [q, kv, kv, null, null, q, null, null];
  return pass === "backward-q"
    ? { ...common, scale, operands: [...backward, write(sizes.q)], layouts: [...layouts, q] }
    : { ...common, scale, operands: [...backward, write(sizes.kv), write(sizes.kv)], layouts: [...layouts, kv, kv] };
}

function attentionCases(): KernelCase[] {
  const shapes = [
    { batch: 2, heads: 3, kvHeads: 3, queries: 9, keys: 9, width: 8, causal: true },
    { batch: 1, heads: 4, kvHeads: 2, queries: 20, keys: 20, width: 16, causal: true },
    { batch: 2, heads: 2, kvHeads: 1, queries: 5, keys: 37, width: 12, causal: false },
    { batch: 1, heads: 2, kvHeads: 2, queries: 1, keys: 70, width: 64, causal: true },
    { batch: 1, heads: 1, kvHeads: 1, queries: 3, keys: 5, width: 6, causal: true },
  ];
  return shapes.flatMap((shape) =>
    (["forward", "backward-q", "backward-kv"] as const).map((pass) => {
      const { batch, keys, queries, heads, kvHeads, width, causal } = shape;
      // The second example is padded at the left and sees nothing at all in its first rows.
      const mask = Uint32Array.from({ length: batch * keys }, (_, i) => i >= keys && i % keys < 3 ? 0 : 1);
      const offset = Int32Array.of(causal ? keys - queries : 0);
      const name = `attention ${pass} ${batch}x${heads}/${kvHeads}x${queries}x${keys}x${width}`;
      return makeCase(name, attentionKernel(pass, shape), 8 * (keys + width), { 3: mask, 4: offset });
    })
  );
}

/** The whole table. */
export function kernelCases(): KernelCase[] {
  return [...scalarCases(), ...mapCases(), ...rowCases(), ...contractCases(), ...scatterCases(), ...attentionCases()];
}
