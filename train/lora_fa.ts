/** LoRA-FA: A stays as it started, and B follows the gradient of the whole change. */
import { OptionError } from "../core/errors.ts";
import { matmul } from "../core/ops/contract.ts";
import { add, div, mul, sqrt, sub } from "../core/ops/elementwise.ts";
import { readTensors, Tensor, upload } from "../core/tensor.ts";
import type { AdapterEntry, Match, Trainable } from "../lora/mod.ts";
import { Matrix, pseudoInverse } from "ml-matrix";
import {
  type AdamWOptions,
  type AdamWState,
  checkAdam,
  nextCorrections,
  type Optimiser,
  startAdam,
  updateLeaves,
} from "./optimiser.ts";
import { checkMembers, checkOptions } from "../core/options.ts";

/**
 * The optimiser of LoRA-FA for an adapter: B's gradient times (A·Aᵀ)⁻¹/s², by Adam in the form of PEFT's `LoraFAOptimizer` (eps
 * beside the uncorrected root, decay after the step). What is not of a pair learns by Adam alone.
 * Source: Zhang et al. 2023, "LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning".
 *
 * @param tuned what `lora` gave, with the values that training starts from
 * @throws {OptionError} for an adapter without pairs, or of placeholders
 */
export async function loraFa(
  tuned: { readonly matched: readonly Match[]; readonly trainable: Trainable },
  options: Omit<AdamWOptions, "groups"> = {},
): Promise<Optimiser<AdamWState>> {
  checkOptions("loraFa", options, { betas: true, eps: true, weightDecay: true });
  checkMembers("loraFa", "an adapted model", tuned, ["matched", "trainable"]);
  const { matched, trainable } = tuned, { betas = [0.9, 0.999], eps = 1e-6, weightDecay = 0 } = options;
  checkAdam("LoRA-FA", { betas, eps, weightDecay });
  const pairs = matched.filter(({ path }) => trainable[path].A !== undefined && trainable[path].B !== undefined);
  if (pairs.length === 0) {
    throw new OptionError("LoRA-FA is for pairs of A and B, and this adapter has none: use adamw");
  }
  const projections = new Map<string, Tensor>(
    await Promise.all(
      pairs.map(async ({ path, scaling }) => [`${path}.B`, await projection(path, trainable[path], scaling)] as const),
    ),
  );
  const frozen = new Set(pairs.map(({ path }) => `${path}.A`));
  return {
    init: startAdam,
    update: (params, grads, state, lr) => {
      const corrections = nextCorrections(state, betas);
      const step = div(mul(lr, sqrt(corrections[1])), corrections[0]);
      return updateLeaves(params, grads, { ...state, corrections }, ({ path, gradient: g, ...before }) => {
        if (frozen.has(path)) return before;
        const own = projections.get(path), gradient = own === undefined ? g : matmul(g, own);
        const mean = add(mul(before.mean, betas[0]), mul(gradient, 1 - betas[0]));
        const square = add(mul(before.square, betas[1]), mul(mul(gradient, gradient), 1 - betas[1]));
        const moved = sub(before.weight, mul(step, div(mean, add(sqrt(square), eps))));
        return { weight: weightDecay === 0 ? moved : sub(moved, mul(mul(lr, weightDecay), moved)), mean, square };
      });
    },
  };
}

/** (A·Aᵀ + δ)⁻¹/s² of a pair, computed once, since A stays. */
async function projection(path: string, { A }: AdapterEntry, scaling: number): Promise<Tensor> {
  if (!(A instanceof Tensor)) {
    throw new OptionError(`LoRA-FA needs the values of A of "${path}", which is a placeholder`);
  }
  const [host] = await readTensors([A]), [r, width] = host.shape;
  const matrix = Matrix.from1DArray(r, width, Array.from(host.data, Number));
  const inverse = pseudoInverse(matrix.mmul(matrix.transpose()).add(Matrix.eye(r).mul(1e-8)));
  const data = Float32Array.from(inverse.to1DArray(), (x) => x / scaling ** 2);
  return upload(A.home, { shape: [r, r], dtype: "f32", data });
}
