/** The LoRA linear that the benchmarks of WebGPU time. */
import { reduceSum } from "../core/ops/broadcast.ts";
import { matmul } from "../core/ops/contract.ts";
import { add, mul } from "../core/ops/elementwise.ts";
import type { Operand, Tensor } from "../core/tensor.ts";
import { valueAndGrad } from "../core/transforms/grad.ts";
import { flatten } from "../core/tree.ts";

/** s. */
export const scale = 2;

/** y = x·W + s·(x·A)·B. */
export const lora = (x: Operand, a: Operand, b: Operand, w: Operand) =>
  add(matmul(x, w), matmul(mul(matmul(x, a), scale), b));

/** y, dx, da, db, as the transforms and the fusion make them. */
export const withGradients = (x: Operand, a: Operand, b: Operand, w: Operand, ct: Operand) => {
  const loss = (x: Operand, a: Operand, b: Operand) => {
    const y = lora(x, a, b, w);
    return [reduceSum(mul(y, ct)), y] as const;
  };
  const [[, y], grads] = valueAndGrad(loss, { argnums: [0, 1, 2], hasAux: true })(x, a, b);
  return [y, ...grads];
};

/** Ends the tensors of a tree. */
export const release = (tree: unknown) => flatten<Tensor>(tree).leaves.forEach((t) => t.dispose());
