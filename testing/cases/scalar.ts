/** Every scalar operation, at the edges that models meet: those of the registry that are not named here, around 1. */
import type { Expr } from "../../kernels/ir/expr.ts";
import type { ScalarOp } from "../../kernels/ir/kernel.ts";
import { type Elementwise, elementwise, resultFor } from "../elementwise.ts";
import { ulps } from "../oracle_scalar.ts";
import { type KernelCase, number, op, range, unary } from "./build.ts";

/** Maps of one operation each. */
export function scalarCases(): KernelCase[] {
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
  const done = new Set(cases.map(({ name }) => name.split(" ")[1]));
  return [...cases, ...elementwise.filter(({ op }) => !done.has(op)).map(unnamed)];
}

/** A map of an operation that has no numbers of its own. */
function unnamed(each: Elementwise): KernelCase {
  const type = resultFor(each, "f32") === null ? "u32" : "f32";
  const result = resultFor(each, type) as Expr["type"], table = ulps[each.op];
  // A case counts units of 2^-24, the table of 2^-23.
  const ulp = table === undefined ? 0 : 2 * Math.max(table.cpu, table.webgpu);
  const inputs = type === "f32" ? range(0.5, 2, 37) : [1, 2, 7, 31];
  return unary(
    `scalar ${each.op}`,
    inputs,
    ulp,
    type,
    (x) => op(each.op, result, ...[x, number(type === "f32" ? 0.75 : 5, type)].slice(0, each.operands)),
  );
}
