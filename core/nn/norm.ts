/** Layer normalisation and its root-mean-square form along the last axis: one row kernel each, forward and backward. */
import { formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { defineComposite } from "../ir/composite.ts";
import { bind1, type Primitive, type Value, type VjpRule } from "../ir/graph.ts";
import { reduceSum } from "../ops/broadcast.ts";
import { asValue } from "../ops/constant.ts";
import { add, convert, mul, rsqrt, sub } from "../ops/elementwise.ts";
import { mean } from "../ops/reduce.ts";
import type { Operand } from "../tensor.ts";

type Eps = { readonly eps: number };

/** The mean of each row, kept as an axis of 1. */
const rowMean = (x: Value) => mean(x, -1, { keep: true });

/** Rows with mean 0 and variance 1, and 1 / their standard deviation. */
function standardise(x: Value, eps: number): { xhat: Value; rstd: Value } {
  const centred = sub(x, rowMean(x));
  const rstd = rsqrt(add(rowMean(mul(centred, centred)), eps));
  return { xhat: mul(centred, rstd), rstd };
}

/** Rows with root mean square 1, and 1 / their root mean square. */
function rescale(x: Value, eps: number): { xhat: Value; rstd: Value } {
  const rstd = rsqrt(add(rowMean(mul(x, x)), eps));
  return { xhat: mul(x, rstd), rstd };
}

/** Saves x alone: the statistics of a row cost less to compute again than to keep. */
const layerNormPrim = defineComposite<Eps>({
  name: "layerNorm",
  define: ([x, gamma, beta], { eps }) => [add(mul(standardise(x, eps).xhat, gamma), beta)],
  vjp: (rule) => {
    const [dx, dgamma] = affineGrads(rule, layerNormGradPrim, standardisePrim);
    const [ct] = rule.cts;
    return [dx, dgamma, rule.needs[2] && ct ? sumOfRows(ct) : null];
  },
  lowering: { kind: "row" },
});

const layerNormGradPrim = defineComposite<Eps>({
  name: "layerNormGrad",
  define: ([x, gamma, ct], { eps }) => {
    const { xhat, rstd } = standardise(x, eps);
    const g = mul(ct, gamma);
    return [mul(rstd, sub(sub(g, rowMean(g)), mul(xhat, rowMean(mul(g, xhat)))))];
  },
  lowering: { kind: "row" },
});

const standardisePrim = defineComposite<Eps>({
  name: "standardise",
  define: ([x], { eps }) => [standardise(x, eps).xhat],
  lowering: { kind: "row" },
});

const rmsNormPrim = defineComposite<Eps>({
  name: "rmsNorm",
  define: ([x, gamma], { eps }) => [mul(rescale(x, eps).xhat, gamma)],
  vjp: (rule) => affineGrads(rule, rmsNormGradPrim, rescalePrim),
  lowering: { kind: "row" },
});

const rmsNormGradPrim = defineComposite<Eps>({
  name: "rmsNormGrad",
  define: ([x, gamma, ct], { eps }) => {
    const { xhat, rstd } = rescale(x, eps);
    const g = mul(ct, gamma);
    return [mul(rstd, sub(g, mul(xhat, rowMean(mul(g, xhat)))))];
  },
  lowering: { kind: "row" },
});

const rescalePrim = defineComposite<Eps>({
  name: "rescale",
  define: ([x], { eps }) => [rescale(x, eps).xhat],
  lowering: { kind: "row" },
});

/** The cotangents of x and gamma, each only where it is asked for. */
function affineGrads(
  { cts: [ct], needs, inputs: [x, gamma], params }: Parameters<VjpRule<Eps>>[0],
  gradX: Primitive<Eps>,
  normalised: Primitive<Eps>,
): (Value | null)[] {
  return [
    needs[0] && ct ? bind1(gradX, [x, gamma, ct], params) : null,
    needs[1] && ct ? sumOfRows(mul(ct, bind1(normalised, [x], params))) : null,
  ];
}

/** […, D] added up to [D]. */
function sumOfRows(x: Value): Value {
  return reduceSum(x, x.shape.slice(0, -1).map((_, i) => i));
}

/** A vector of x's last size, as f32. */
function perColumn(name: string, what: string, x: Value, vector: Operand): Value {
  const value = asValue(vector);
  if (value.shape.length !== 1 || value.shape[0] !== x.shape.at(-1)) {
    throw new ShapeError(
      `Cannot ${name} ${formatAval(x.aval)} with a ${what} of ${formatAval(value.aval)}: it takes [${x.shape.at(-1)}]`,
    );
  }
  return convert(value, "f32");
}

/**
 * (x - mean) / √(variance + eps) · gamma + beta along the last axis: x f32[…, D], gamma and beta [D], to f32[…, D].
 * Source: Ba et al. 2016, "Layer Normalization", equation 4.
 *
 * @throws {ShapeError} when gamma or beta is not of x's last size
 */
export function layerNorm(x: Operand, gamma: Operand, beta: Operand, eps: number): Value {
  const value = asValue(x);
  const [g, b] = [perColumn("layerNorm", "gamma", value, gamma), perColumn("layerNorm", "beta", value, beta)];
  return bind1(layerNormPrim, [value, g, b], { eps });
}

/**
 * x / √(mean(x²) + eps) · gamma along the last axis: x f32[…, D], gamma [D], to f32[…, D].
 * Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4.
 *
 * @throws {ShapeError} when gamma is not of x's last size
 */
export function rmsNorm(x: Operand, gamma: Operand, eps: number): Value {
  const value = asValue(x);
  return bind1(rmsNormPrim, [value, perColumn("rmsNorm", "gamma", value, gamma)], { eps });
}
