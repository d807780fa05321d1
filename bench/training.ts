/** Training steps on models of real sizes with random weights: what the benchmarks of whole steps share. */
import { sizeOf } from "../core/aval.ts";
import { causalLoss } from "../core/nn/loss.ts";
import type { Value } from "../core/ir/graph.ts";
import type { Model } from "../core/model.ts";
import { Tensor, upload } from "../core/tensor.ts";
import { flatten, mapTree } from "../core/tree.ts";
import { CpuDevice } from "../kernels/device/cpu/cpu.ts";
import type { Device } from "../kernels/device/device.ts";
import { jit, type JitOptions } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { lora } from "../lora/lora.ts";
import { gpt2 } from "../models/families/gpt2.ts";
import { llama } from "../models/families/llama.ts";
import { parseConfig } from "../models/load/config.ts";
import type { LayeredModel } from "../models/families/language_model.ts";
import { adamw } from "../train/optimiser.ts";
import { makeStep } from "../train/step.ts";
import { release } from "./lora_work.ts";

/** A model from what its configuration file would say. */
const gpt2Of = (sizes: { vocab_size: number; n_embd: number; n_layer: number; n_head: number }) => {
  const config = gpt2.sizes(parseConfig({ model_type: "gpt2", n_positions: 1024, ...sizes }, "config.json"));
  return {
    vocabulary: config.vocabSize,
    shapes: gpt2.shapes(config),
    make: (p: unknown) => gpt2.over(config, p as never),
  };
};

const smollm2Of = () => {
  const file = {
    model_type: "llama",
    vocab_size: 49152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: 2048,
    rope_theta: 100000,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  };
  const config = llama.sizes(parseConfig(file, "config.json"));
  return {
    vocabulary: config.vocabSize,
    shapes: llama.shapes(config),
    make: (p: unknown) => llama.over(config, p as never),
  };
};

/** The models by name: their sizes, the layers that adapters go to, and the batch of a step. */
export const models = {
  "gpt2-small": {
    ...gpt2Of({ vocab_size: 50257, n_embd: 768, n_layer: 12, n_head: 12 }),
    targets: ["c_attn"],
    batch: [4, 128],
  },
  "gpt2-tiny": {
    ...gpt2Of({ vocab_size: 4096, n_embd: 256, n_layer: 4, n_head: 4 }),
    targets: ["c_attn"],
    batch: [8, 128],
  },
  "smollm2": { ...smollm2Of(), targets: ["q_proj", "v_proj"], batch: [2, 128] },
} as const;

export type ModelName = keyof typeof models;

/** A model with random weights, made without a copy on the host where the device's memory is the host's. */
export function randomModel(device: Device, name: ModelName): LayeredModel<never> {
  const { shapes, make } = models[name];
  let state = 1;
  const isShape = (x: unknown) => Array.isArray(x) && typeof x[0] === "number";
  const params = mapTree(shapes, (shape: number[]) => {
    const size = sizeOf(shape);
    const buffer = device.allocate(4 * size);
    const data = device instanceof CpuDevice ? device.view(buffer, "f32", size) : new Float32Array(size);
    for (let i = 0; i < size; i++) {
      state = (state * 48271) % 2147483647;
      data[i] = shape.length === 1 ? 1 : (state / 2147483647 - 0.5) * 0.07;
    }
    if (!(device instanceof CpuDevice)) device.write(buffer, data as Float32Array<ArrayBuffer>);
    return new Tensor(device, buffer, { shape, dtype: "f32" });
  }, isShape);
  return make(params) as unknown as LayeredModel<never>;
}

/** Random token ids i32[batch, tokens]. */
export function randomIds(device: Device, name: ModelName, shape: readonly number[] = models[name].batch): Tensor {
  let state = 7;
  const data = Int32Array.from({ length: shape[0] * shape[1] }, () => {
    state = (state * 48271) % 2147483647;
    return state % models[name].vocabulary;
  });
  return upload(device, { shape, dtype: "i32", data });
}

/** A training step that can be repeated, and what it holds. */
export interface TrainingStep {
  /** Does one step, or several that share a wait; resolves to the last one's loss once they are done. */
  once(steps?: number): Promise<number>;
  readonly trainable: number;
  readonly optimiserBytes: number;
  readonly savedBytes: number;
}

/**
 * The step of a model: AdamW on adapters of rank 8, or, if `full`, on every weight; clipped, f32. Adapters go to the layers
 * that the model's table names, unless others are named here.
 */
export function trainingStep(
  device: Device,
  name: ModelName,
  full: boolean,
  { targets = [...models[name].targets], rematerialise }: { targets?: string[] | "all-linear" } & JitOptions = {},
): TrainingStep {
  const model = randomModel(device, name) as unknown as Model<unknown, { inputIds: unknown }, never>;
  const ids = randomIds(device, name);
  const tuned = full ? null : lora(model, { r: 8, alpha: 16, targets: targets as never });
  const optimiser = adamw();
  const loss = (params: unknown, frozen: unknown, inputIds: Value) =>
    causalLoss(
      tuned ? tuned.apply(params as never, frozen as never, { inputIds }) : model.apply(params, { inputIds }),
      inputIds,
    );
  const step = jit(makeStep(loss, { optimiser, clip: 1 }), { donate: [0], rematerialise });
  const params = tuned ? tuned.trainable : model.params;
  const frozen = tuned ? tuned.frozen : null;
  let state = { params, optimiser: jit(optimiser.init)(params) };
  const bytes = (tree: unknown) =>
    flatten<Tensor>(tree, (x) => x instanceof Tensor).leaves.reduce((sum, t) => sum + 4 * t.size, 0);
  return {
    async once(steps = 1) {
      for (let i = 1;; i++) {
        const { state: next, report } = step(state, 2e-4, frozen, ids);
        state = next;
        if (i >= steps) return await read(report.loss, { release: true }).finally(() => report.gradNorm.dispose());
        release(report);
      }
    },
    trainable: bytes(params) / 4,
    optimiserBytes: bytes(state.optimiser),
    savedBytes: bytes(params),
  };
}
