/** Phi-3 and Phi-4: Abdin et al. 2024, "Phi-3 Technical Report". Llama's blocks with projections that are fused. */
import { FileError } from "../../core/errors.ts";
import { isObject, type ModelConfig } from "../load/config.ts";
import { type BlockParams, blocks, type BlockSizes, everywhere, noBiases, type Scale } from "./block.ts";
import { decoder, type DecoderFamily } from "./language_model.ts";
import { windowOf } from "./layer_types.ts";
import type { Linear } from "./layers.ts";
import { common, gguf, normsBefore } from "./llama.ts";
import { readRotary, type Rotary } from "./rotary.ts";

/** One block. D is the width, F the feed-forward width, Q = heads · headDim, K = kvHeads · headDim. */
export interface Phi3Layer {
  /** [D], before attention. */
  readonly input_layernorm: Scale;
  /** `qkv_proj` [Q + 2K, D] (queries, keys, values), `o_proj` [D, Q]. */
  readonly self_attn: { readonly qkv_proj: Linear; readonly o_proj: Linear };
  /** [D], before the feed-forward part. */
  readonly post_attention_layernorm: Scale;
  /** `gate_up_proj` [2F, D] (gates first), `down_proj` [D, F]. */
  readonly mlp: { readonly gate_up_proj: Linear; readonly down_proj: Linear };
}

const { headDim: _headDim, ...keys } = common.keys;
const { attn_q: _q, attn_k: _k, attn_v: _v, ffn_gate: _gate, ...inside } = gguf.inside;

const widthOfHeads = ({ hidden_size, num_attention_heads }: Readonly<Record<string, unknown>>) =>
  Number(hidden_size) / Number(num_attention_heads);

/** Phi-3 and Phi-4. */
export const phi3: DecoderFamily<BlockParams<Phi3Layer>, BlockSizes> = decoder({
  ...common,
  ...blocks({ norms: normsBefore, fused: true, gate: "silu" }),
  modelType: "phi3",
  models: "Phi-3, Phi-3.5, Phi-4, Phi-4-mini (not the small-, vision- and mixture models)",
  own: "fused projections, whose parts can be targets (`qkv_proj[q,v]`); longrope; a part of each head is rotated",
  className: "Phi3ForCausalLM",
  keys,
  defaults: { context: 4096, eps: 1e-5 },
  parts: ({ heads, kvHeads, headDim }) => ({
    qkv_proj: { q: heads * headDim, k: kvHeads * headDim, v: kvHeads * headDim },
    gate_up_proj: ["gate", "up"],
  }),
  // A file with factors of longrope has tensors that are not read, and is refused.
  gguf: {
    ...gguf,
    name: "phi3",
    inside: { ...inside, attn_qkv: "self_attn.qkv_proj", ffn_up: "mlp.gate_up_proj" },
    keys: {
      "rope.dimension_count": {
        ...{ meaning: "values of a head that are rotated", config: "partial_rotary_factor", type: "u32", absent: 1 },
        read: (count, sizes) => Number(count) / widthOfHeads(sizes),
        write: (share, sizes) => share * widthOfHeads(sizes),
      },
    },
    config: () => ({ hidden_act: "silu" }),
  },
  example: { sliding_window: 5, partial_rotary_factor: 0.5 },
  sizes: (config, sizes) => {
    const kind = rotaryOf(config, sizes.headDim);
    return {
      ...sizes,
      rotary: everywhere(sizes.layers, kind),
      biases: noBiases,
      windows: everywhere(sizes.layers, windowOf(config, null)),
      // Keys of the short range are made again for the long one.
      ...(kind.beyond && { cacheLength: kind.beyond.context }),
    };
  },
});

/** Longrope goes by several names in files of Phi-3. */
function rotaryOf(config: ModelConfig, headDim: number): Rotary {
  const { rope_parameters: given = {} } = config.raw;
  if (given !== null && !isObject(given)) {
    throw new FileError(`${config.path} says rope_parameters is ${JSON.stringify(given)}: download it again.`);
  }
  const { rope_type, ...rest } = given ?? {};
  const type = rope_type === "su" || rope_type === "yarn" ? "longrope" : rope_type;
  return readRotary(config, headDim, {
    parameters: { ...rest, rope_type: type },
    share: 1,
    types: ["default", "longrope"],
  });
}
