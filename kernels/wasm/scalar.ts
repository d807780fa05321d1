/** One table of every scalar operation on four lanes: operands are on the stack, the result replaces them. */
import type { ScalarType } from "../../core/dtype.ts";
import type { Costs } from "../plan/costs.ts";
import type { ScalarOp } from "../ir/kernel.ts";
import type { Code } from "./assembler.ts";
import type { MathEmitter } from "./math.ts";
import type { PlainOpcode } from "./opcodes.ts";

/** What an operation's emitter is given: `from` is the operands' type, `to` the result's. */
interface Site {
  readonly code: Code;
  readonly math: MathEmitter;
  readonly from: ScalarType;
  readonly to: ScalarType;
}

type Emit = (site: Site) => void;

/** In registers a bool is a lane of ones or zeros; in memory it is the u32 1 or 0. */
const emitters: Record<Exclude<ScalarOp, "select">, Emit> = {
  neg: byType({ f32: "f32x4.neg", i32: "i32x4.neg", u32: "i32x4.neg" }),
  abs: byType({ f32: "f32x4.abs", i32: "i32x4.abs" }, { u32: () => {} }),
  sign: byType({}, {
    f32: ({ code }) => {
      // ±1 where x is above or below 0, else x itself: zeros and NaN stay.
      withVectors(code, 1, ([x]) => {
        code.tee(x).i32x4(-0x80000000, -0x80000000, -0x80000000, -0x80000000).op("v128.and").f32x4(1).op("v128.or");
        code.get(x).get(x).op("f32x4.abs").f32x4(0).op("f32x4.gt", "v128.bitselect");
      });
    },
    i32: ({ code }) => code.i32x4(1, 1, 1, 1).op("i32x4.min_s").i32x4(-1, -1, -1, -1).op("i32x4.max_s"),
    u32: ({ code }) => code.i32x4(1, 1, 1, 1).op("i32x4.min_u"),
  }),
  floor: byType({ f32: "f32x4.floor" }),
  exp: ({ math }) => math.exp(),
  log: ({ math }) => math.log(),
  sqrt: byType({ f32: "f32x4.sqrt" }),
  rsqrt: ({ code }) => divideInto(code, () => code.op("f32x4.sqrt")),
  recip: ({ code }) => divideInto(code, () => {}),
  tanh: ({ math }) => math.tanh(),
  erf: ({ math }) => math.erf(),
  sin: ({ math }) => math.sin(),
  cos: ({ math }) => math.cos(),
  isFinite: ({ code }) => {
    const exponent = [0x7f800000, 0x7f800000, 0x7f800000, 0x7f800000] as const;
    code.i32x4(...exponent).op("v128.and").i32x4(...exponent).op("i32x4.ne");
  },
  not: byType({ i32: "v128.not", u32: "v128.not", bool: "v128.not" }),
  convert: ({ code, from, to }) => {
    if (from === to) return;
    if (from === "bool") to === "f32" ? code.f32x4(1).op("v128.and") : code.i32x4(1, 1, 1, 1).op("v128.and");
    else if (to === "bool") code.i32x4(0, 0, 0, 0).op(from === "f32" ? "f32x4.ne" : "i32x4.ne");
    else if (to === "f32") code.op(from === "i32" ? "f32x4.convert_i32x4_s" : "f32x4.convert_i32x4_u");
    else if (from === "f32") code.op(to === "i32" ? "i32x4.trunc_sat_f32x4_s" : "i32x4.trunc_sat_f32x4_u");
  },
  bitcast: () => {},
  add: byType({ f32: "f32x4.add", i32: "i32x4.add", u32: "i32x4.add" }),
  sub: byType({ f32: "f32x4.sub", i32: "i32x4.sub", u32: "i32x4.sub" }),
  mul: byType({ f32: "f32x4.mul", i32: "i32x4.mul", u32: "i32x4.mul" }),
  div: byType({ f32: "f32x4.div" }, { i32: divide("i32.div_s"), u32: divide("i32.div_u") }),
  rem: byType({}, {
    f32: ({ code }) =>
      withVectors(code, 2, ([x, y]) => {
        code.set(y).set(x).get(x).get(x).get(y).op("f32x4.div", "f32x4.trunc").get(y).op("f32x4.mul");
        // Of a number by infinity it is the number, not 0 times infinity.
        code.get(x).op("f32x4.abs").get(y).op("f32x4.abs", "f32x4.lt", "v128.andnot", "f32x4.sub");
        code.get(x).i32x4(-0x80000000, -0x80000000, -0x80000000, -0x80000000).op("v128.and", "v128.or");
      }),
    i32: divide("i32.rem_s"),
    u32: divide("i32.rem_u"),
  }),
  pow: ({ math }) => math.pow(),
  max: byType({ f32: "f32x4.max", i32: "i32x4.max_s", u32: "i32x4.max_u", bool: "v128.or" }),
  min: byType({ f32: "f32x4.min", i32: "i32x4.min_s", u32: "i32x4.min_u", bool: "v128.and" }),
  eq: byType({ f32: "f32x4.eq", i32: "i32x4.eq", u32: "i32x4.eq", bool: "i32x4.eq" }),
  ne: byType({ f32: "f32x4.ne", i32: "i32x4.ne", u32: "i32x4.ne", bool: "i32x4.ne" }),
  lt: byType({ f32: "f32x4.lt", i32: "i32x4.lt_s", u32: "i32x4.lt_u", bool: "i32x4.lt_u" }),
  le: byType({ f32: "f32x4.le", i32: "i32x4.le_s", u32: "i32x4.le_u", bool: "i32x4.le_u" }),
  gt: byType({ f32: "f32x4.gt", i32: "i32x4.gt_s", u32: "i32x4.gt_u", bool: "i32x4.gt_u" }),
  ge: byType({ f32: "f32x4.ge", i32: "i32x4.ge_s", u32: "i32x4.ge_u", bool: "i32x4.ge_u" }),
  and: byType({ i32: "v128.and", u32: "v128.and", bool: "v128.and" }),
  or: byType({ i32: "v128.or", u32: "v128.or", bool: "v128.or" }),
  xor: byType({ i32: "v128.xor", u32: "v128.xor", bool: "v128.xor" }),
  shl: perLane("i32.shl"),
  shr: byType({}, { i32: perLane("i32.shr_s"), u32: perLane("i32.shr_u") }),
};

/** Emits `op` other than select on the operands on the stack. */
export function emitScalar(op: Exclude<ScalarOp, "select">, site: Site): void {
  emitters[op](site);
}

/** An emitter that picks by the operands' type: one instruction, or a sequence. */
function byType(
  opcodes: Partial<Record<ScalarType, PlainOpcode>>,
  sequences: Partial<Record<ScalarType, Emit>> = {},
): Emit {
  return (site) => {
    const sequence = sequences[site.from], opcode = opcodes[site.from];
    if (sequence) sequence(site);
    else if (opcode) site.code.op(opcode);
    else throw new Error(`a kernel asks for a scalar operation that ${site.from} does not have`);
  };
}

/** 1 divided by what `denominator` makes of the value on the stack. */
function divideInto(code: Code, denominator: () => void): void {
  withVectors(code, 1, ([x]) => {
    denominator();
    code.set(x).f32x4(1).get(x).op("f32x4.div");
  });
}

/** Integer division and shifts by a varying count have no vector instruction. */
function perLane(opcode: PlainOpcode): Emit {
  return ({ code }) =>
    withVectors(code, 3, ([x, y, result]) => {
      code.set(y).set(x);
      for (let lane = 0; lane < 4; lane++) {
        code.get(result).get(x).lane("i32x4.extract_lane", lane).get(y).lane("i32x4.extract_lane", lane);
        code.op(opcode).lane("i32x4.replace_lane", lane).set(result);
      }
      code.get(result);
    });
}

/**
 * A division that never traps: x / 0 = -1 (all bits), x % 0 = x, and the least i32 by -1 is itself with remainder 0. Lanes
 * that would trap are divided by 1.
 */
function divide(opcode: "i32.div_s" | "i32.div_u" | "i32.rem_s" | "i32.rem_u"): Emit {
  const divided = perLane(opcode), signed = opcode.endsWith("s"), quotient = opcode.startsWith("i32.div");
  return (site) => {
    const { code } = site;
    withVectors(code, 4, ([x, y, zero, minus]) => {
      code.tee(y).i32x4(0, 0, 0, 0).op("i32x4.eq").set(zero).set(x);
      if (signed) code.get(y).i32x4(-1, -1, -1, -1).op("i32x4.eq").set(minus);
      code.get(x).i32x4(1, 1, 1, 1).get(y).get(zero);
      if (signed) code.get(minus).op("v128.or");
      code.op("v128.bitselect");
      divided(site);
      code.set(y);
      if (quotient && signed) code.get(y).op("i32x4.neg").get(y).get(minus).op("v128.bitselect").set(y);
      if (quotient) code.i32x4(-1, -1, -1, -1);
      else code.get(x);
      code.get(y).get(zero).op("v128.bitselect");
    });
  };
}

function withVectors(code: Code, count: number, body: (locals: ReturnType<Code["local"]>[]) => void): void {
  const locals = Array.from({ length: count }, () => code.local("v128"));
  body(locals);
  code.release("v128", ...locals);
}

/** An AMD EPYC with AVX-512; `cpu (wasm simd, 1 thread)`. Without fused multiply-add exp takes 1.6 and tanh 1.5. */
export const cpuCosts: Costs = {
  operations: {
    add: 0.039,
    sub: 0.036,
    mul: 0.025,
    div: 0.15,
    rem: 0.16,
    pow: 16,
    max: 0.23,
    min: 0.19,
    neg: 0.036,
    abs: 0.035,
    sign: 0.18,
    floor: 0.049,
    exp: 0.77,
    log: 2.5,
    sqrt: 0.28,
    rsqrt: 0.51,
    recip: 0.15,
    tanh: 1,
    erf: 3.1,
    sin: 1.6,
    cos: 2,
    eq: 0.042,
    ne: 0.042,
    lt: 0.042,
    le: 0.042,
    gt: 0.042,
    ge: 0.042,
    select: 0.042,
    isFinite: 0.11,
    and: 0.03,
    or: 0.024,
    xor: 0.016,
    shl: 0.58,
    shr: 0.58,
    not: 0.047,
    convert: 0.082,
    bitcast: 0.01,
  },
  random: 3.7,
  read: 0.059,
  write: 0.06,
  launch: 690,
};
