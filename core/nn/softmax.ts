/** Softmax, its logarithm and that of its sum along the last axis: one row kernel each, forward and backward. */
import type { Value } from "../ir/graph.ts";
import { bind1 } from "../ir/graph.ts";
import { defineComposite } from "../ir/composite.ts";
import { broadcastTo, reduceSum, reshape } from "../ops/broadcast.ts";
import { axisOf } from "../ops/arguments.ts";
import { asValue } from "../ops/constant.ts";
import { barrier } from "../ops/control.ts";
import { add, div, exp, log, mul, sub } from "../ops/elementwise.ts";
import { reduceMax } from "../ops/reduce.ts";
import { moveAxis } from "../ops/structure.ts";
import type { Operand } from "../tensor.ts";

/** x minus the greatest of its row: what keeps exp from overflowing. */
function centre(x: Value): Value {
  return sub(x, reduceMax(x, -1, { keep: true }));
}

const softmaxPrim = defineComposite<null>({
  name: "softmax",
  define: ([x]) => {
    const e = exp(centre(x));
    return [div(e, reduceSum(e, -1, { keep: true }))];
  },
  vjp: ({ cts: [ct], outs: [y] }) => [ct && bind1(softmaxGradPrim, [y, ct], null)],
  lowering: { kind: "row" },
});

const softmaxGradPrim = defineComposite<null>({
  name: "softmaxGrad",
  define: ([y, ct]) => [mul(y, sub(ct, reduceSum(mul(y, ct), -1, { keep: true })))],
  lowering: { kind: "row" },
});

const logSoftmaxPrim = defineComposite<null>({
  name: "logSoftmax",
  define: ([x]) => {
    const centred = centre(x);
    return [sub(centred, log(reduceSum(exp(centred), -1, { keep: true })))];
  },
  vjp: ({ cts: [ct], outs: [y] }) => [ct && bind1(logSoftmaxGradPrim, [y, ct], null)],
  lowering: { kind: "row" },
});

const logSoftmaxGradPrim = defineComposite<null>({
  name: "logSoftmaxGrad",
  define: ([y, ct]) => [sub(ct, mul(exp(y), reduceSum(ct, -1, { keep: true })))],
  lowering: { kind: "row" },
});

const logSumExpPrim = defineComposite<null>({
  name: "logSumExp",
  define: ([x]) => {
    const highest = reduceMax(x, -1, { keep: true });
    const sum = log(reduceSum(exp(sub(x, highest)), -1, { keep: true }));
    return [reshape(add(sum, highest), x.shape.slice(0, -1))];
  },
  vjp: ({ cts: [ct], inputs: [x] }) => {
    if (!ct) return [null];
    const [again] = barrier([x], [ct]);
    return [mul(bind1(softmaxPrim, [again], null), broadcastTo(reshape(ct, [...ct.shape, 1]), x.shape))];
  },
  lowering: { kind: "row" },
});

/** exp(x) / Σ exp(x) along one axis: f32 of any shape, to the same shape. */
export function softmax(x: Operand, axis = -1): Value {
  return alongLast(x, axis, (v) => bind1(softmaxPrim, [v], null));
}

/** log(softmax(x)) along one axis, without the rounding of a logarithm of small numbers. */
export function logSoftmax(x: Operand, axis = -1): Value {
  return alongLast(x, axis, (v) => bind1(logSoftmaxPrim, [v], null));
}

/** log(Σ exp(x)) along one axis, which is left out: no size of x overflows. */
export function logSumExp(x: Operand, axis = -1): Value {
  const value = asValue(x);
  const last = value.shape.length - 1, at = axisOf("logSumExp", value.aval, axis);
  return bind1(logSumExpPrim, [at === last ? value : moveAxis(value, at, last)], null);
}

/** `f` of rows, applied along any axis by moving it to the end and back. */
function alongLast(x: Operand, axis: number, f: (x: Value) => Value): Value {
  const value = asValue(x);
  const last = value.shape.length - 1;
  const at = axisOf("softmax", value.aval, axis);
  return at === last ? f(value) : moveAxis(f(moveAxis(value, at, last)), last, at);
}
