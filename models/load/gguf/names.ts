/** GGUF tensor names as Hugging Face names, and how each tensor's layout differs from Hugging Face's. */

/**
 * How a GGUF tensor is laid out beside the Hugging Face weight of that name: `same`; `transposed`, (out, in) where GPT-2's
 * Conv1D is (in, out); `heads`, rows of each query head paired for interleaved rotation; `kvHeads`, the same for keys.
 */
export type GgufLayout = "same" | "transposed" | "heads" | "kvHeads";

interface Rule {
  readonly to: string;
  readonly layout: GgufLayout;
}

const same = (to: string): Rule => ({ to, layout: "same" });
const transposed = (to: string): Rule => ({ to, layout: "transposed" });

/** Qwen is like Llama, except that it keeps the order of the rows of q and k. */
const blockRules = {
  token_embd: same("model.embed_tokens"),
  output_norm: same("model.norm"),
  output: same("lm_head"),
  attn_norm: same("input_layernorm"),
  attn_q: same("self_attn.q_proj"),
  attn_k: same("self_attn.k_proj"),
  attn_v: same("self_attn.v_proj"),
  attn_output: same("self_attn.o_proj"),
  ffn_norm: same("post_attention_layernorm"),
  ffn_gate: same("mlp.gate_proj"),
  ffn_up: same("mlp.up_proj"),
  ffn_down: same("mlp.down_proj"),
};

const tables: Readonly<Record<string, { readonly block: string; readonly rules: Readonly<Record<string, Rule>> }>> = {
  llama: {
    block: "model.layers.",
    rules: {
      ...blockRules,
      attn_q: { to: "self_attn.q_proj", layout: "heads" },
      attn_k: { to: "self_attn.k_proj", layout: "kvHeads" },
    },
  },
  qwen2: { block: "model.layers.", rules: blockRules },
  qwen3: {
    block: "model.layers.",
    rules: { ...blockRules, attn_q_norm: same("self_attn.q_norm"), attn_k_norm: same("self_attn.k_norm") },
  },
  gpt2: {
    block: "h.",
    rules: {
      token_embd: same("wte"),
      position_embd: same("wpe"),
      output_norm: same("ln_f"),
      output: same("lm_head"),
      attn_norm: same("ln_1"),
      attn_qkv: transposed("attn.c_attn"),
      attn_output: transposed("attn.c_proj"),
      ffn_norm: same("ln_2"),
      ffn_up: transposed("mlp.c_fc"),
      ffn_down: transposed("mlp.c_proj"),
    },
  },
};

/** Architectures with Llama's names whose rows of q and k stay in Hugging Face's order. */
const inOrder = ["qwen2", "qwen3"];

/** Architectures whose GGUF files can be read. */
export const ggufArchitectures: readonly string[] = Object.keys(tables);

/**
 * The Hugging Face name and layout of a GGUF tensor, `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; a name
 * without a rule keeps its own, so that it is reported as unexpected. Source: llama.cpp's gguf-py/gguf/tensor_mapping.py.
 */
export function huggingFaceName(architecture: string, name: string): { name: string; layout: GgufLayout } {
  const parts = /^(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)$/.exec(name);
  const table = tables[architecture];
  if (parts === null || !Object.hasOwn(table.rules, parts[2])) return { name, layout: "same" };
  const [, block, stem, kind] = parts;
  const rule = table.rules[stem];
  const prefix = block === undefined ? "" : `${table.block}${block}.`;
  return { name: `${prefix}${rule.to}.${kind}`, layout: rule.layout };
}

/**
 * The modules of a model of `layers` layers by Hugging Face's path, with the weight that each is in a GGUF file:
 * `model.layers.3.self_attn.q_proj` → `blk.3.attn_q.weight`. Null for an architecture that is not known.
 */
export function ggufModules(
  architecture: string,
  layers: number,
): Map<string, { readonly tensor: string; readonly layout: GgufLayout }> | null {
  const ordered = inOrder.includes(architecture);
  const name = ordered ? "llama" : architecture;
  if (!Object.hasOwn(tables, name)) return null;
  const { block, rules } = tables[name];
  return new Map(
    Object.entries(rules).flatMap(([stem, { to, layout: own }]) => {
      const layout = ordered ? "same" : own;
      const outside = /^(token_|position_|output)/.test(stem);
      const all = outside ? [""] : Array.from({ length: layers }, (_, i) => `${i}`);
      return all.map((i) =>
        i === ""
          ? [to, { tensor: `${stem}.weight`, layout }] as const
          : [`${block}${i}.${to}`, { tensor: `blk.${i}.${stem}.weight`, layout }] as const
      );
    }),
  );
}
