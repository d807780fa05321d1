import type { ScalarType } from "../../core/dtype.ts";
import type { Costs } from "../plan/costs.ts";
import type { ScalarOp } from "../ir/kernel.ts";
import type { HelperSet } from "./helpers.ts";

/** One lane, or four neighbours along the vector axis. */
export type Width = 1 | 4;

/** A WGSL expression. An atom needs no parentheses anywhere. */
export interface Term {
  readonly text: string;
  readonly type: ScalarType;
  readonly width: Width;
  readonly atom: boolean;
}

/** The WGSL type of `width` lanes of `type`. */
export function typeName(type: ScalarType, width: Width): string {
  return width === 1 ? type : `vec4<${type}>`;
}

/** The same value on all four lanes. */
export function splat(term: Term): Term {
  if (term.width === 4) return term;
  return { ...term, text: `vec4<${term.type}>(${term.text})`, width: 4, atom: true };
}

/** The value of one lane. */
export function laneOf(term: Term, lane: number): Term {
  if (term.width === 1) return term;
  return { ...term, text: `${grouped(term)}.${"xyzw"[lane]}`, width: 1, atom: true };
}

/** The text, in parentheses unless it is an atom. */
export function grouped(term: Term): string {
  return term.atom ? term.text : `(${term.text})`;
}

interface Site {
  readonly type: ScalarType;
  readonly width: Width;
  readonly helpers: HelperSet;
}
type Rule = (args: readonly Term[], site: Site) => Term;

const result = (site: Site, text: string, atom: boolean): Term => ({ text, type: site.type, width: site.width, atom });
const same = (args: readonly Term[], site: Site) => site.width === 4 ? args.map(splat) : args;

/** A WGSL built-in. */
const call = (name: string): Rule => (args, site) =>
  result(site, `${name}(${same(args, site).map((a) => a.text).join(", ")})`, true);
/** A function from helpers.ts. */
const helper = (name: Parameters<HelperSet["use"]>[0]): Rule => (args, site) =>
  call(site.helpers.use(name, site.width))(args, site);
/** An operator between a vector and a scalar as well as between equals. */
const mixed = (sign: string): Rule => (args, site) => result(site, args.map(grouped).join(` ${sign} `), false);
/** An operator that wants both operands of one width. */
const strict = (sign: string): Rule => (args, site) => mixed(sign)(same(args, site), site);
const prefix = (sign: string): Rule => ([x], site) => result(site, `${sign}${grouped(x)}`, false);
const zero = (term: Term) => term.width === 4 ? `vec4<${term.type}>()` : `${term.type}()`;

/** `!(x == y)` and not `x != y`: the latter may be an ordered comparison, which is false for NaN. */
const differ = (x: Term, y: string, site: Site): Term => result(site, `!(${grouped(x)} == ${y})`, false);

/** By the count modulo 32. */
const shift = (sign: string): Rule => ([x, y], site) => {
  const count = `${typeName("u32", site.width)}(${site.width === 4 ? splat(y).text : y.text})`;
  const small = /^([12]?\d|3[01])[iu]$/.test(y.text);
  const amount = small ? count : `(${count} & ${typeName("u32", site.width)}(31u))`;
  return result(site, `${grouped(site.width === 4 ? splat(x) : x)} ${sign} ${amount}`, false);
};

/** Integers by what may be 0 or -1 are divided by a function that says what comes of it. */
const divide = (sign: "/" | "%"): Rule => (args, site) => {
  const safe = site.type === "f32" || /^[1-9]\d*[iu]$/.test(args[1].text);
  if (safe) return mixed(sign)(args, site);
  const names = sign === "/"
    ? { i32: "divide_i32", u32: "divide_u32" } as const
    : { i32: "rest_i32", u32: "rest_u32" } as const;
  return helper(names[site.type as "i32" | "u32"])(args, site);
};

/** Every scalar operation in WGSL. Unlike some built-ins these hold at the edges that models meet: see helpers.ts. */
export const scalarRules = {
  neg: (args, site) => site.type === "u32" ? mixed("-")([term("0u", "u32"), args[0]], site) : prefix("-")(args, site),
  abs: call("abs"),
  sign: (args, site) =>
    site.type === "u32" ? call("min")([args[0], term("1u", "u32")], site) : call("sign")(args, site),
  floor: call("floor"),
  exp: call("exp"),
  log: call("log"),
  sqrt: call("sqrt"),
  rsqrt: call("inverseSqrt"),
  recip: (args, site) => mixed("/")([term("1.0", "f32"), args[0]], site),
  tanh: helper("tanh_exact"),
  erf: helper("erf"),
  sin: helper("sine"),
  cos: helper("cosine"),
  isFinite: ([x], site) => {
    const bits = `bitcast<${typeName("u32", x.width)}>(${x.text})`;
    const mask = (word: string) => x.width === 4 ? `vec4<u32>(${word})` : word;
    return result(site, `(${bits} & ${mask("0x7f800000u")}) != ${mask("0x7f800000u")}`, false);
  },
  not: ([x], site) => prefix(x.type === "bool" ? "!" : "~")([x], site),
  convert: ([x], site) => {
    if (x.type === site.type) return x;
    if (site.type === "bool") {
      return x.type === "f32" ? differ(x, zero(x), site) : result(site, `${grouped(x)} != ${zero(x)}`, false);
    }
    if (x.type === "f32") return helper(site.type === "i32" ? "to_i32" : "to_u32")([x], site);
    return result(site, `${typeName(site.type, x.width)}(${x.text})`, true);
  },
  bitcast: ([x], site) => {
    const bits = x.type === "bool" ? `${typeName("u32", x.width)}(${x.text})` : x.text;
    if (site.type === "bool") {
      const word = { ...x, type: "u32" } as const;
      return result(site, `bitcast<${typeName("u32", x.width)}>(${bits}) != ${zero(word)}`, false);
    }
    return result(site, `bitcast<${typeName(site.type, x.width)}>(${bits})`, true);
  },
  add: mixed("+"),
  sub: mixed("-"),
  mul: mixed("*"),
  div: divide("/"),
  rem: divide("%"),
  pow: helper("power"),
  max: call("max"),
  min: call("min"),
  eq: strict("=="),
  ne: (args, site) => {
    const [x, y] = same(args, site);
    return x.type === "f32" ? differ(x, grouped(y), site) : strict("!=")([x, y], site);
  },
  lt: strict("<"),
  le: strict("<="),
  gt: strict(">"),
  ge: strict(">="),
  and: strict("&"),
  or: strict("|"),
  xor: (args, site) => strict(site.type === "bool" ? "!=" : "^")(args, site),
  shl: shift("<<"),
  shr: shift(">>"),
  select: ([condition, yes, no], site) => {
    // The condition must be as wide as the values; a scalar one can also choose between two vectors.
    const [a, b] = same([yes, no], site);
    return result(site, `select(${b.text}, ${a.text}, ${condition.text})`, true);
  },
} satisfies Record<ScalarOp, Rule>;

/** A scalar atom. */
export function term(text: string, type: ScalarType): Term {
  return { text, type, width: 1, atom: true };
}

/** Mesa's software adapter on two cores of the same; to a GPU, too, operations are cheap and memory is dear. */
export const webgpuCosts: Costs = {
  operations: {
    add: 0.015,
    sub: 0.05,
    mul: 0.01,
    div: 0.084,
    rem: 0.035,
    pow: 0.88,
    max: 0.039,
    min: 0.095,
    neg: 0.01,
    abs: 0.01,
    sign: 0.051,
    floor: 0.013,
    exp: 0.15,
    log: 0.33,
    sqrt: 0.052,
    rsqrt: 0.11,
    recip: 0.058,
    tanh: 0.51,
    erf: 0.64,
    sin: 0.43,
    cos: 0.46,
    eq: 0.042,
    ne: 0.042,
    lt: 0.042,
    le: 0.042,
    gt: 0.042,
    ge: 0.042,
    select: 0.042,
    isFinite: 0.01,
    and: 0.11,
    or: 0.21,
    xor: 0.29,
    shl: 0.11,
    shr: 0.3,
    not: 0.032,
    convert: 0.032,
    bitcast: 0.01,
  },
  random: 0.72,
  read: 0.48,
  write: 0.55,
  launch: 200_000,
};
