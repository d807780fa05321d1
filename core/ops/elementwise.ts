import { sameShape } from "../aval.ts";
import type { DType } from "../dtype.ts";
import { isFloat } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { type Aval, formatAval } from "../aval.ts";
import { bind1, type Primitive, Value } from "../ir/graph.ts";
import { isPacked } from "../packed/blocks.ts";
import { type Operand, Tensor } from "../tensor.ts";
import type { Scalar, ScalarOperand } from "../tree_types.ts";
import { broadcastTo } from "./broadcast.ts";
import { asValue } from "./constant.ts";
import { asNumbers } from "./quantize.ts";

type Kind = "float" | "number" | "integer" | "bits" | "any";
const accepts: Record<Kind, (d: DType) => boolean> = {
  float: (d) => d === "f32",
  number: (d) => d === "f32" || d === "i32" || d === "u32",
  integer: (d) => d === "i32" || d === "u32",
  bits: (d) => d === "i32" || d === "u32" || d === "bool",
  any: (d) => !isPacked(d),
};

const kindNames: Record<Kind, string> = {
  float: "f32",
  number: "f32, i32 or u32",
  integer: "i32 or u32",
  bits: "i32, u32 or bool",
  any: "values",
};

function inferSame(name: string, kind: Kind, result?: DType): (inputs: readonly Aval[]) => Aval[] {
  return (inputs) => {
    const [first] = inputs;
    for (const a of inputs) {
      if (!sameShape(a.shape, first.shape) || a.dtype !== first.dtype || !accepts[kind](a.dtype)) {
        const remedy = inputs.some((x) => x.dtype === "f16" || x.dtype === "bf16")
          ? ': arithmetic is f32, so convert(x, "f32") first'
          : "";
        throw new ShapeError(
          `Cannot ${name} ${inputs.map(formatAval).join(" and ")}: it takes ${
            kindNames[kind]
          } of one shape and dtype${remedy}`,
        );
      }
    }
    return [{ shape: first.shape, dtype: result ?? first.dtype }];
  };
}

type Vjp = Primitive["vjp"];

function elementwise(name: string, kind: Kind, vjp: Vjp, result?: DType): Primitive<null> {
  return {
    name,
    infer: inferSame(name, kind, result),
    vjp,
    batch: ({ inputs, batched, size }) => [
      bind1(
        primitives[name],
        inputs.map((x, i) => batched[i] ? x : broadcastTo(x, [size, ...x.shape], { leading: true })),
        null,
      ),
    ],
    lowering: { kind: "scalar", op: name },
  };
}

/** A derivative rule from f'(inputs, output) per input. */
function derivative(...of: ((inputs: readonly Value[], out: Value) => Value)[]): Vjp {
  return ({ cts, needs, inputs, outs }) =>
    of.map((d, i) => needs[i] && cts[0] !== null ? mul(cts[0], d(inputs, outs[0])) : null);
}

/** A rule from the cotangent straight to each input's. */
function pullback(...of: ((ct: Value, inputs: readonly Value[], out: Value) => Value)[]): Vjp {
  return ({ cts, needs, inputs, outs }) =>
    of.map((f, i) => needs[i] && cts[0] !== null ? f(cts[0], inputs, outs[0]) : null);
}

const none: Vjp = "nondifferentiable";

/** The names of the operations of one operand, and of two. */
type Elementary = "exp" | "log" | "sqrt" | "rsqrt" | "recip" | "tanh" | "erf" | "sin" | "cos";
type UnaryOp = "neg" | "abs" | "sign" | "floor" | Elementary | "isFinite" | "not";
type Arithmetic = "add" | "sub" | "mul" | "div" | "rem" | "pow" | "max" | "min";
type Comparison = "eq" | "ne" | "lt" | "le" | "gt" | "ge";
type BinaryOp = Arithmetic | Comparison | "and" | "or" | "xor" | "shl" | "shr";

/** Of one operand, by the name of its scalar operation. `isFinite` is a bit test; `not` is logical on bool, bitwise on u32 and i32. */
export const unaryPrimitives: Record<UnaryOp, Primitive<null>> = {
  neg: elementwise("neg", "number", pullback((ct) => neg(ct))),
  abs: elementwise("abs", "number", derivative(([x]) => sign(x))),
  sign: elementwise("sign", "number", none),
  floor: elementwise("floor", "float", none),
  exp: elementwise("exp", "float", derivative((_, y) => y)),
  log: elementwise("log", "float", pullback((ct, [x]) => div(ct, x))),
  sqrt: elementwise("sqrt", "float", pullback((ct, _, y) => div(mul(ct, 0.5), y))),
  rsqrt: elementwise("rsqrt", "float", derivative(([x], y) => mul(mul(y, -0.5), recip(x)))),
  recip: elementwise("recip", "float", derivative((_, y) => neg(mul(y, y)))),
  tanh: elementwise("tanh", "float", derivative((_, y) => sub(1, mul(y, y)))),
  erf: elementwise("erf", "float", derivative(([x]) => mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI)))),
  sin: elementwise("sin", "float", derivative(([x]) => cos(x))),
  cos: elementwise("cos", "float", derivative(([x]) => neg(sin(x)))),
  isFinite: elementwise("isFinite", "float", none, "bool"),
  not: elementwise("not", "bits", none),
};

/**
 * Of two operands of one type. Comparisons give bool. `shr` is logical on u32, arithmetic on i32, and shifts count modulo 32.
 * Float `rem` is x - y*trunc(x/y). Of integers x / 0 is -1, x % 0 is x, and the least by -1 is itself, with remainder 0.
 */
export const binaryPrimitives: Record<BinaryOp, Primitive<null>> = {
  add: elementwise("add", "number", pullback((ct) => ct, (ct) => ct)),
  sub: elementwise("sub", "number", pullback((ct) => ct, (ct) => neg(ct))),
  mul: elementwise("mul", "number", derivative(([, b]) => b, ([a]) => a)),
  div: elementwise(
    "div",
    "number",
    pullback((ct, [, b]) => div(ct, b), (ct, [, b], y) => neg(div(mul(ct, y), b))),
  ),
  rem: elementwise(
    "rem",
    "number",
    pullback((ct) => ct, (ct, [a, b], y) => neg(mul(ct, div(sub(a, y), b)))),
  ),
  pow: elementwise(
    "pow",
    "float",
    // By the limit where 0 would meet infinity: b·a^(b-1) is 0 for b = 0, and a^b·log a for a = 0 and b ≥ 0.
    derivative(
      ([a, b]) => mul(b, pow(a, sub(select(eq(b, 0), 1, b), 1))),
      ([a, b], y) => mul(log(select(and(eq(a, 0), ge(b, 0)), 1, a)), y),
    ),
  ),
  // Where both are equal the first takes the gradient.
  max: elementwise(
    "max",
    "number",
    pullback((ct, [a, b]) => select(ge(a, b), ct, 0), (ct, [a, b]) => select(ge(a, b), 0, ct)),
  ),
  min: elementwise(
    "min",
    "number",
    pullback((ct, [a, b]) => select(le(a, b), ct, 0), (ct, [a, b]) => select(le(a, b), 0, ct)),
  ),
  eq: elementwise("eq", "any", none, "bool"),
  ne: elementwise("ne", "any", none, "bool"),
  lt: elementwise("lt", "number", none, "bool"),
  le: elementwise("le", "number", none, "bool"),
  gt: elementwise("gt", "number", none, "bool"),
  ge: elementwise("ge", "number", none, "bool"),
  and: elementwise("and", "bits", none),
  or: elementwise("or", "bits", none),
  xor: elementwise("xor", "bits", none),
  shl: elementwise("shl", "integer", none),
  shr: elementwise("shr", "integer", none),
};

/** The elementwise primitives by name. */
export const primitives: Readonly<Record<string, Primitive<null>>> = { ...unaryPrimitives, ...binaryPrimitives };

/**
 * The scalar operations that expressions are made of: a back end has one table that covers them all. `convert` is to the
 * expression's own type: float to int truncates and saturates (NaN is 0), to bool is `!= 0`, from bool is 0 or 1. `bitcast`
 * reads the same 32 bits as that type.
 */
export type ScalarOp = UnaryOp | BinaryOp | "select" | "convert" | "bitcast";

export const selectPrim: Primitive<null> = {
  name: "select",
  infer: ([c, a, b]) => {
    if (
      c.dtype !== "bool" || a.dtype !== b.dtype || isPacked(a.dtype) || !sameShape(c.shape, a.shape) ||
      !sameShape(a.shape, b.shape)
    ) {
      throw new ShapeError(
        `Cannot select by ${formatAval(c)} between ${formatAval(a)} and ${formatAval(b)}: ` +
          `it takes a bool and two values of one dtype, all of one shape`,
      );
    }
    return [a];
  },
  vjp: ({ cts: [ct], needs, inputs: [c] }) => [
    null,
    needs[1] && ct ? select(c, ct, 0) : null,
    needs[2] && ct ? select(c, 0, ct) : null,
  ],
  batch: ({ inputs, batched, size }) => [
    bind1(
      selectPrim,
      inputs.map((x, i) => batched[i] ? x : broadcastTo(x, [size, ...x.shape], { leading: true })),
      null,
    ),
  ],
  lowering: { kind: "scalar", op: "select" },
};

export const convertPrim: Primitive<{ dtype: DType }> = {
  name: "convert",
  infer: ([x], { dtype }) => {
    if (isPacked(dtype) || isPacked(x.dtype)) {
      throw new ShapeError(
        `Cannot convert ${formatAval(x)} to ${dtype}: quantize makes packed arrays, dequantize reads them`,
      );
    }
    return [{ shape: x.shape, dtype }];
  },
  vjp: ({ cts: [ct], inputs: [x] }) => [ct && isFloat(x.dtype) && isFloat(ct.dtype) ? convert(ct, x.dtype) : null],
  batch: ({ inputs: [x], params }) => [convert(x, params.dtype)],
  lowering: { kind: "scalar", op: "convert" },
};

export const bitcastPrim: Primitive<{ dtype: DType }> = {
  name: "bitcast",
  infer: ([x], { dtype }) => {
    for (const each of [x.dtype, dtype]) {
      if (each !== "f32" && each !== "i32" && each !== "u32") {
        throw new ShapeError(`Cannot bitcast ${formatAval(x)} to ${dtype}: both are f32, i32 or u32`);
      }
    }
    return [{ shape: x.shape, dtype }];
  },
  vjp: none,
  batch: ({ inputs: [x], params }) => [bitcast(x, params.dtype)],
  lowering: { kind: "scalar", op: "bitcast" },
};

/** The shape that operands broadcast to by NumPy's rule: aligned at the end, an axis of 1 stretches. */
function broadcastShape(name: string, shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, axis) => {
    let size = 1;
    for (const shape of shapes) {
      const d = shape[axis - rank + shape.length] ?? 1;
      if (d === 1 || d === size) continue;
      if (size !== 1) {
        throw new ShapeError(
          `Cannot ${name} shapes ${shapes.map((s) => `[${s}]`).join(" and ")}: ` +
            `axis ${axis - rank} is ${size} in one and ${d} in another; sizes must be equal or 1`,
        );
      }
      size = d;
    }
    return size;
  });
}

/** Operands as values of one shape and one dtype; a number takes the dtype of the others. */
function align(name: string, operands: readonly Operand[]): Value[] {
  const typed = operands.find((x) => x instanceof Value || x instanceof Tensor) as Value | Tensor | undefined;
  const dtype = typed?.dtype ?? "f32";
  const values = operands.map((x) => {
    const context = typeof x === "number" && dtype !== "f32" ? `${name} ${formatAval(typed!.aval)} and ${x}` : name;
    return asValue(x, dtype, context);
  });
  const shape = broadcastShape(name, values.map((v) => v.shape));
  return values.map((v) => broadcastTo(v, shape));
}

const unary = (name: keyof typeof unaryPrimitives) =>
  ((x: Operand) => bind1(primitives[name], [asValue(x, "f32", name)], null)) as Unary;
const binary = (name: keyof typeof binaryPrimitives) =>
  ((a: Operand, b: Operand) => bind1(primitives[name], align(name, [a, b]), null)) as Binary;

/** An operation on each element, of one shape and dtype with its operand unless it says otherwise. */
export interface Unary {
  /** Of one number. */
  (x: ScalarOperand): Scalar;
  /** Of each element. */
  (x: Operand): Value;
}

/**
 * An operation on pairs of elements: shapes broadcast by NumPy's rule, dtypes must be the same, and a number takes the
 * other's. Throws a {@link ShapeError} otherwise.
 */
export interface Binary {
  /** Of two numbers. */
  (a: ScalarOperand, b: ScalarOperand): Scalar;
  /** Of elements pair by pair. */
  (a: Operand, b: Operand): Value;
}

/** -x. */
export const neg: Unary = unary("neg");
/** |x|. */
export const abs: Unary = unary("abs");
/** -1, 0 or 1. */
export const sign: Unary = unary("sign");
/** The greatest whole number that is not above x. */
export const floor: Unary = unary("floor");
/** e^x. */
export const exp: Unary = unary("exp");
/** The natural logarithm; NaN below 0. */
export const log: Unary = unary("log");
/** √x; NaN below 0. */
export const sqrt: Unary = unary("sqrt");
/** 1 / √x. */
export const rsqrt: Unary = unary("rsqrt");
/** 1 / x. */
export const recip: Unary = unary("recip");
/** The hyperbolic tangent. */
export const tanh: Unary = unary("tanh");
/** The error function, 2/√π · ∫₀ˣ e^(-t²) dt. */
export const erf: Unary = unary("erf");
/** The sine of radians. */
export const sin: Unary = unary("sin");
/** The cosine of radians. */
export const cos: Unary = unary("cos");
/** Whether each f32 is neither infinite nor NaN: a test of its bits. */
export const isFiniteValue: Unary = unary("isFinite");
/** No for bool, all bits flipped for integers. */
export const not: Unary = unary("not");
/** a + b. */
export const add: Binary = binary("add");
/** a - b. */
export const sub: Binary = binary("sub");
/** a · b. */
export const mul: Binary = binary("mul");
/** a / b; integers truncate, and by 0 give -1 (all bits of u32). The least i32 by -1 is itself: it wraps. */
export const div: Binary = binary("div");
/** The remainder of a division that truncates, with the sign of a: rem(-5, 3) is -2. Integers by 0 give a. Floats' is not exact for large a / b. */
export const rem: Binary = binary("rem");
/** a^b, for a of at least 0. */
export const pow: Binary = binary("pow");
/** The greater of two. */
export const max: Binary = binary("max");
/** The lesser of two. */
export const min: Binary = binary("min");
/** a = b, as bool. */
export const eq: Binary = binary("eq");
/** a ≠ b, as bool. */
export const ne: Binary = binary("ne");
/** a < b, as bool. */
export const lt: Binary = binary("lt");
/** a ≤ b, as bool. */
export const le: Binary = binary("le");
/** a > b, as bool. */
export const gt: Binary = binary("gt");
/** a ≥ b, as bool. */
export const ge: Binary = binary("ge");
/** Both, bit by bit for integers. */
export const and: Binary = binary("and");
/** Either, bit by bit for integers. */
export const or: Binary = binary("or");
/** One of two, bit by bit for integers. */
export const xor: Binary = binary("xor");
/** a shifted left by b bits, b modulo 32. */
export const shl: Binary = binary("shl");
/** a shifted right by b bits, b modulo 32: i32 keeps its sign, u32 fills with 0. */
export const shr: Binary = binary("shr");

/** `a` where `condition` holds, else `b`. */
export function select(condition: Operand, a: Operand, b: Operand): Value {
  const [x, y] = align("select", [a, b]);
  const c = asValue(condition, "bool");
  const shape = broadcastShape("select", [c.shape, x.shape]);
  return bind1(selectPrim, [broadcastTo(c, shape), broadcastTo(x, shape), broadcastTo(y, shape)], null);
}

/** x limited to [low, high]. */
export function clamp(x: Operand, low: Operand, high: Operand): Value {
  return min(max(x, low), high);
}

/**
 * The same numbers in another dtype: floats round to nearest; float to integer truncates, to the nearest there is where it is
 * out of range, and NaN to 0; to bool it is whether it is not 0.
 */
export function convert(x: ScalarOperand, dtype: DType): Scalar;
/** {@link convert} of any array. */
export function convert(x: Operand, dtype: DType): Value;
export function convert(x: Operand, dtype: DType): Value {
  const value = asNumbers(x);
  return value.dtype === dtype ? value : bind1(convertPrim, [value], { dtype });
}

/** The same 32 bits read as another dtype. */
export function bitcast(x: Operand, dtype: DType): Value {
  return bind1(bitcastPrim, [asValue(x)], { dtype });
}
