/** SmolLM3: Bakouch et al. 2025. Llama's blocks, of which some know nothing of positions. */
import { FileError } from "../../core/errors.ts";
import type { ModelConfig } from "../load/config.ts";
import { biasesOf, type BlockSizes } from "./block.ts";
import { decoder, type DecoderFamily } from "./language_model.ts";
import { full, layerTypes, sliding, windowOf, windowsOf } from "./layer_types.ts";
import { block, common, ggufOfLlama, type LlamaParams } from "./llama.ts";
import { readRotary } from "./rotary.ts";

/** SmolLM3. */
export const smollm3: DecoderFamily<LlamaParams, BlockSizes> = decoder({
  ...common,
  ...block,
  modelType: "smollm3",
  models: "SmolLM3",
  own: "layers without positions (`no_rope_layers`)",
  className: "SmolLM3ForCausalLM",
  defaults: { context: 32_768, kvHeads: 4, eps: 1e-6 },
  tiedHead: true,
  gguf: { ...ggufOfLlama, name: "smollm3" },
  example: { num_hidden_layers: 4, rope_parameters: { rope_type: "default", rope_theta: 10_000 } },
  sizes: (config, sizes) => {
    const { layers, headDim } = sizes;
    const turned = turnedLayers(config, layers), kind = readRotary(config, headDim, { theta: 2_000_000 });
    return {
      ...sizes,
      rotary: turned.map((turns) => turns ? kind : null),
      biases: biasesOf(config),
      windows: windowsOfUnturned(config, turned),
    };
  },
});

/** Which layers' queries and keys are turned: 1 in `no_rope_layers`; by default all but every fourth. */
function turnedLayers(config: ModelConfig, layers: number): readonly boolean[] {
  const given = config.raw.no_rope_layers ?? null, interval = config.integer("no_rope_layer_interval", 4);
  if (given === null) return Array.from({ length: layers }, (_, i) => (i + 1) % interval !== 0);
  if (Array.isArray(given) && given.length === layers && given.every((x) => x === 0 || x === 1)) {
    return given.map((x) => x === 1);
  }
  throw new FileError(
    `${config.path} says no_rope_layers is ${JSON.stringify(given)}, where ${layers} numbers 0 or 1 are expected.`,
  );
}

/** Windows, where they are used at all, are those of layers without positions, unless `layer_types` names others. */
function windowsOfUnturned(config: ModelConfig, turned: readonly boolean[]): readonly (number | null)[] {
  const window = windowOf(config, null), used = config.flag("use_sliding_window", false) && window !== null;
  const types = layerTypes(config, turned.length) ?? turned.map((turns) => used && !turns ? sliding : full);
  return windowsOf(types, window);
}
