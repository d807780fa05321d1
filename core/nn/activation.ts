/**
 * Activations, one scalar function per element. Each saves only its input, and computes its exponential or hyperbolic
 * tangent once forward and once backward.
 */
import { defineComposite } from "../ir/composite.ts";
import { bind, bind1, type Primitive, type Value } from "../ir/graph.ts";
import { asValue } from "../ops/constant.ts";
import { barrier } from "../ops/control.ts";
import { abs, add, div, erf, exp, ge, min, mul, neg, select, sub, tanh } from "../ops/elementwise.ts";
import type { Operand } from "../tensor.ts";

/**
 * A composite of one input, with its derivative as a composite beside it. The derivative stands behind a barrier: what both
 * have in common is computed again, not saved.
 */
function activation(name: string, f: (x: Value) => Value, derivative: (x: Value) => Value): Primitive<null> {
  const gradPrim = defineComposite<null>({
    name: `${name}Grad`,
    define: ([x, ct]) => [mul(ct, derivative(x))],
  });
  return defineComposite<null>({
    name,
    define: ([x]) => [f(x)],
    vjp: ({ cts: [ct], inputs }) => [ct && bind1(gradPrim, [...barrier(inputs, [ct]), ct], null)],
  });
}

/** e^-|x|, at most 1: no size of x overflows, and what is small keeps its digits. */
const decay = (x: Value) => exp(neg(abs(x)));

const sigmoidPrim: Primitive<null> = activation(
  "sigmoid",
  (x) => {
    const e = decay(x);
    return div(select(ge(x, 0), 1, e), add(e, 1));
  },
  (x) => mul(sigmoid(x), sigmoid(neg(x))),
);

/** log(1 + e) for 0 ≤ e ≤ 1 to a few units in the last place: 2 artanh(e / (2 + e)) by its series. */
function logOfOneAnd(e: Value): Value {
  const z = div(e, add(e, 2)), square = mul(z, z);
  let sum: Value = mul(square, 1 / 17);
  for (let n = 15; n > 1; n -= 2) sum = mul(add(sum, 1 / n), square);
  return mul(mul(add(sum, 1), z), 2);
}

const logSigmoidPrim = activation(
  "logSigmoid",
  (x) => sub(min(x, 0), logOfOneAnd(decay(x))),
  (x) => sigmoid(neg(x)),
);

const geluPrim = activation(
  "gelu",
  (x) => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1)),
  (x) =>
    add(
      mul(add(erf(mul(x, Math.SQRT1_2)), 1), 0.5),
      mul(mul(x, exp(mul(mul(x, x), -0.5))), 1 / Math.sqrt(2 * Math.PI)),
    ),
);

const slope = Math.sqrt(2 / Math.PI);
const cubic = 0.044715;
const innerTanh = (x: Value) => tanh(mul(mul(x, add(mul(mul(x, x), cubic), 1)), slope));

const geluTanhPrim = activation(
  "geluTanh",
  (x) => mul(mul(x, 0.5), add(innerTanh(x), 1)),
  (x) => {
    const t = innerTanh(x);
    const inner = mul(add(mul(mul(x, x), 3 * cubic), 1), slope);
    return mul(add(add(t, 1), mul(mul(x, sub(1, mul(t, t))), inner)), 0.5);
  },
);

/** d silu / dx from σ(x): σ·(1 + x·(1 - σ)). */
const siluSlope = (x: Value, s: Value) => mul(s, add(mul(x, sub(1, s)), 1));

const siluPrim = activation("silu", (x) => mul(x, sigmoid(x)), (x) => siluSlope(x, sigmoid(x)));

const swigluPrim = defineComposite<null>({
  name: "swiglu",
  define: ([gate, up]) => [mul(mul(gate, sigmoid(gate)), up)],
  vjp: ({ cts: [ct], inputs }) => ct ? [...bind(swigluGradPrim, [...barrier(inputs, [ct]), ct], null)] : [null, null],
});

const swigluGradPrim = defineComposite<null>({
  name: "swigluGrad",
  define: ([gate, up, ct]) => {
    const s = sigmoid(gate);
    return [mul(mul(ct, up), siluSlope(gate, s)), mul(ct, mul(gate, s))];
  },
});

/** 1 / (1 + e^-x), with the digits of e^x where that is small: sigmoid(-80) is not 0. */
export function sigmoid(x: Operand): Value {
  return bind1(sigmoidPrim, [asValue(x)], null);
}

/** log(sigmoid(x)) for x of any size, where sigmoid(x) may be too small a number: logSigmoid(-1000) is -1000. */
export function logSigmoid(x: Operand): Value {
  return bind1(logSigmoidPrim, [asValue(x)], null);
}

/** x·Φ(x) by the error function. Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units". */
export function gelu(x: Operand): Value {
  return bind1(geluPrim, [asValue(x)], null);
}

/** The tanh approximation of gelu that GPT-2 was trained with (`gelu_new`). */
export function geluTanh(x: Operand): Value {
  return bind1(geluTanhPrim, [asValue(x)], null);
}

/** x·σ(x). */
export function silu(x: Operand): Value {
  return bind1(siluPrim, [asValue(x)], null);
}

/** silu(gate)·up, the gated unit of Llama's feed-forward. Source: Shazeer 2020, "GLU Variants Improve Transformer". */
export function swiglu(gate: Operand, up: Operand): Value {
  return bind1(swigluPrim, [asValue(gate), asValue(up)], null);
}
