/** Training steps on models of real sizes with random weights: what the benchmarks of whole steps share. */
import { sizeOf } from "../core/aval.ts";
import { causalLoss } from "../core/nn/loss.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Model } from "../core/model.ts";
import { Tensor, upload } from "../core/tensor.ts";
import { flatten, mapTree } from "../core/tree.ts";
import type { CpuDevice } from "../kernels/device/cpu.ts";
import { jit, read } from "../kernels/jit.ts";
import { lora } from "../lora/lora.ts";
import { gpt2Shapes, makeGpt2 } from "../models/gpt2.ts";
import { llamaShapes, makeLlama } from "../models/llama.ts";
import type { LayeredModel } from "../models/language_model.ts";
import { adamw } from "../train/optimiser.ts";
import { makeStep } from "../train/step.ts";

const gpt2Of = (sizes: { vocabSize: number; width: number; layers: number; heads: number }) => {
  const config = {
    ...sizes,
    contextLength: 1024,
    innerWidth: 4 * sizes.width,
    activation: "gelu_new",
    eps: 1e-5,
    tiedHead: true,
  } as const;
  return { shapes: gpt2Shapes(config), make: (params: unknown) => makeGpt2(config, params as never), config };
};

const llamaOf = () => {
  const config = {
    vocabSize: 49152,
    contextLength: 2048,
    width: 576,
    layers: 30,
    heads: 9,
    kvHeads: 3,
    headDim: 64,
    innerWidth: 1536,
    eps: 1e-5,
    inverseFrequencies: Float32Array.from({ length: 32 }, (_, i) => 100000 ** (-i / 32)),
    tiedHead: true,
    attentionBias: false,
    mlpBias: false,
  };
  return { shapes: llamaShapes(config), make: (params: unknown) => makeLlama(config, params as never), config };
};

/** The models by name: their sizes, the layers that adapters go to, and the batch of a step. */
export const models = {
  "gpt2-small": {
    ...gpt2Of({ vocabSize: 50257, width: 768, layers: 12, heads: 12 }),
    targets: ["c_attn"],
    batch: [4, 128],
  },
  "gpt2-tiny": {
    ...gpt2Of({ vocabSize: 4096, width: 256, layers: 4, heads: 4 }),
    targets: ["c_attn"],
    batch: [8, 128],
  },
  "smollm2": { ...llamaOf(), targets: ["q_proj", "v_proj"], batch: [2, 128] },
} as const;

export type ModelName = keyof typeof models;

/** A model with random weights, made in the device's memory without a copy on the host. */
export function randomModel(device: CpuDevice, name: ModelName): LayeredModel<never> {
  const { shapes, make } = models[name];
  let state = 1;
  const isShape = (x: unknown) => Array.isArray(x) && typeof x[0] === "number";
  const params = mapTree(shapes, (shape: number[]) => {
    const size = sizeOf(shape);
    const buffer = device.allocate(4 * size);
    const data = device.view(buffer, "f32", size);
    for (let i = 0; i < size; i++) {
      state = (state * 48271) % 2147483647;
      data[i] = shape.length === 1 ? 1 : (state / 2147483647 - 0.5) * 0.07;
    }
    return new Tensor(device, buffer, { shape, dtype: "f32" });
  }, isShape);
  return make(params) as unknown as LayeredModel<never>;
}

/** Random token ids i32[batch, tokens]. */
export function randomIds(device: CpuDevice, name: ModelName, [batch, tokens] = models[name].batch): Tensor {
  let state = 7;
  const data = Int32Array.from({ length: batch * tokens }, () => {
    state = (state * 48271) % 2147483647;
    return state % models[name].config.vocabSize;
  });
  return upload(device, { shape: [batch, tokens], dtype: "i32", data });
}

/** A training step that can be repeated, and what it holds. */
export interface TrainingStep {
  /** Does one step; resolves once it is done. */
  once(): Promise<void>;
  readonly trainable: number;
  readonly optimiserBytes: number;
  readonly savedBytes: number;
}

/** The step of a model: AdamW on adapters of rank 8, or, if `full`, on every weight; clipped, f32. */
export function trainingStep(device: CpuDevice, name: ModelName, full: boolean): TrainingStep {
  const model = randomModel(device, name) as unknown as Model<unknown, { inputIds: unknown }, never>;
  const ids = randomIds(device, name);
  const tuned = full ? null : lora(model, { r: 8, alpha: 16, targets: [...models[name].targets] as never });
  const optimiser = adamw();
  const loss = (params: unknown, frozen: unknown, inputIds: Value) =>
    causalLoss(
      tuned ? tuned.apply(params as never, frozen as never, { inputIds }) : model.apply(params, { inputIds }),
      inputIds,
    );
  const step = jit(makeStep(loss, { optimiser, clip: 1 }), { donate: [0] });
  const params = tuned ? tuned.trainable : model.params;
  const frozen = tuned ? tuned.frozen : null;
  let state = { params, optimiser: jit(optimiser.init)(params) };
  const bytes = (tree: unknown) =>
    flatten<Tensor>(tree, (x) => x instanceof Tensor).leaves.reduce((sum, t) => sum + 4 * t.size, 0);
  return {
    async once() {
      const { state: next, report } = step(state, 2e-4, frozen, ids);
      state = next;
      await read(report, { release: true });
    },
    trainable: bytes(params) / 4,
    optimiserBytes: bytes(state.optimiser),
    savedBytes: bytes(params),
  };
}
