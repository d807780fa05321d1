/** LoRA-FA: A stays as it started, and B follows the gradient of the whole change. */
import { OptionError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import { asValue } from "../core/ops/constant.ts";
import { matmul } from "../core/ops/contract.ts";
import { add, div, mul, sqrt, sub } from "../core/ops/elementwise.ts";
import { full } from "../core/ops/broadcast.ts";
import { readTensors, Tensor, upload } from "../core/tensor.ts";
import { flatten, mapTree } from "../core/tree.ts";
import type { AdapterEntry, Match, Trainable } from "../lora/mod.ts";
import { Matrix, pseudoInverse } from "ml-matrix";
import type { AdamWOptions, AdamWState, Optimiser } from "./optimiser.ts";
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
  const zeros = (params: unknown) => mapTree<Leaf, Leaf>(params, (leaf) => full(leaf.shape, 0));
  return {
    init: (params) => ({ mean: zeros(params), square: zeros(params), corrections: [full([], 0), full([], 0)] }),
    update: (params, grads, state, lr) => {
      const corrections = betas.map((beta, i) => add(mul(state.corrections[i], beta), 1 - beta)) as [Leaf, Leaf];
      const step = div(mul(lr, sqrt(asValue(corrections[1]))), corrections[0]);
      const flat = flatten<Leaf>(params);
      const [g, means, squares] = [grads, state.mean, state.square].map((tree) => flatten<Leaf>(tree).leaves);
      const next = flat.leaves.map((w, i) => {
        if (frozen.has(flat.paths[i])) return { weight: w, mean: means[i], square: squares[i] };
        const own = projections.get(flat.paths[i]), gradient = own === undefined ? g[i] : matmul(g[i], own);
        const mean = add(mul(means[i], betas[0]), mul(gradient, 1 - betas[0]));
        const square = add(mul(squares[i], betas[1]), mul(mul(gradient, gradient), 1 - betas[1]));
        const moved = sub(w, mul(step, div(mean, add(sqrt(square), eps))));
        return { weight: weightDecay === 0 ? moved : sub(moved, mul(mul(lr, weightDecay), moved)), mean, square };
      });
      return {
        params: flat.unflatten(next.map((n) => n.weight)) as typeof params,
        state: {
          mean: flat.unflatten(next.map((n) => n.mean)),
          square: flat.unflatten(next.map((n) => n.square)),
          corrections,
        },
      };
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
