/** Adapters that real PEFT writes: each is computed as PEFT computes it, or refused by the name of what it has. */
import { assert, assertEquals } from "@std/assert";
import { FileError } from "../../core/errors.ts";
import { type HostTensor, tensor } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { apart, peer, readFloats, runScript } from "./peer.ts";

const bases = {
  gpt2: {
    folder: `${import.meta.dirname}/../goldens/cases/gpt2-base/model`,
    linear: "c_attn",
    embedding: "wte",
    norm: "ln_f",
  },
  llama: {
    folder: `${import.meta.dirname}/../goldens/cases/llama-base/model`,
    linear: "q_proj",
    embedding: "embed_tokens",
    norm: "norm",
  },
};

type Row = readonly [what: string, options: Record<string, unknown>, refused?: string, method?: string];

/** Options of PEFT on a base, and the word that a refusal has. */
function rows({ linear, embedding, norm }: typeof bases.llama, isLlama: boolean): Row[] {
  const lora = (options: object = {}) => ({ r: 4, lora_alpha: 8, target_modules: [linear], ...options });
  const tied = (options: object) => lora({ ensure_weight_tying: true, ...options });
  const both = [linear, embedding];
  const anywhere: Row[] = [
    ["gaussian", lora({ init_lora_weights: "gaussian" })],
    ["orthogonal", lora({ init_lora_weights: "orthogonal" })],
    ["MiCA", lora({ init_lora_weights: "mica" })],
    ["PiSSA", lora({ init_lora_weights: "pissa" }), "PiSSA"],
    ["activated LoRA", lora({ alora_invocation_tokens: [5, 6] })],
    ["a saved embedding", lora({ modules_to_save: [embedding] })],
    ["a saved embedding, tied", tied({ modules_to_save: [embedding] })],
    ["a saved head, tied", tied({ modules_to_save: ["lm_head"] })],
    ["both saved, tied", tied({ modules_to_save: [embedding, "lm_head"] })],
    ["an embedding", lora({ target_modules: both })],
    ["an embedding, tied", tied({ target_modules: both })],
    ["an embedding of another alpha, tied", tied({ target_modules: both, alpha_pattern: { [embedding]: 3 } })],
    ["an embedding with DoRA, tied", tied({ target_modules: both, use_dora: true })],
    ["an embedding of another rank, tied", tied({ target_modules: both, rank_pattern: { [embedding]: 2 } })],
    ["a head of another rank, tied", tied({ target_modules: both, rank_pattern: { lm_head: 2 }, use_rslora: true })],
    ["tokens, tied", tied({ trainable_token_indices: [3, 5] })],
    ["tokens of the head", lora({ trainable_token_indices: { lm_head: [3, 5] } }), "trainable_token_indices"],
    ["every bias, and modules", lora({ bias: "all", modules_to_save: [norm, "mlp"] })],
    ["biases of the adapted, and modules", lora({ bias: "lora_only", modules_to_save: [norm] })],
    ["a head", lora({ target_modules: [linear, "lm_head"] })],
    ["IA3", { target_modules: [linear], feedforward_modules: [] }, undefined, "IA3Config"],
    ["IA3 of inputs", { target_modules: [linear], feedforward_modules: [linear] }, undefined, "IA3Config"],
    ["a prefix", { num_virtual_tokens: 3 }, undefined, "PrefixTuningConfig"],
    ["a projected prefix", { num_virtual_tokens: 3, prefix_projection: true }, undefined, "PrefixTuningConfig"],
    ["a prompt", { num_virtual_tokens: 3 }, undefined, "PromptTuningConfig"],
    [
      "a sampled prompt",
      { num_virtual_tokens: 3, prompt_tuning_init: "SAMPLE_VOCAB" },
      undefined,
      "PromptTuningConfig",
    ],
    ["p-tuning", { num_virtual_tokens: 3 }, undefined, "PromptEncoderConfig"],
    [
      "p-tuning by an LSTM",
      { num_virtual_tokens: 3, encoder_reparameterization_type: "LSTM" },
      undefined,
      "PromptEncoderConfig",
    ],
    ["VeRA", { r: 4, target_modules: [linear] }, undefined, "VeraConfig"],
    [
      "VeRA drawn again",
      { r: 4, target_modules: [linear], save_projection: false, projection_prng_key: 9 },
      undefined,
      "VeraConfig",
    ],
  ];
  // What PEFT 0.21 can't do with GPT-2's kind of linear layers.
  const onLinear: Row[] = [
    ["OLoRA", lora({ init_lora_weights: "olora" }), "OLoRA"],
    ["KaSA", lora({ kasa_config: {} }), "kasa_config"],
    ["repeated layers", lora({ layer_replication: [[0, 2], [1, 2]] }), "layer_replication"],
    ["a head, tied", tied({ target_modules: [linear, "lm_head"] })],
    ["LoHa", { r: 4, target_modules: [linear], rank_pattern: { k_proj: 2 } }, undefined, "LoHaConfig"],
  ];
  return isLlama ? [...anywhere, ...onLinear] : anywhere;
}

for (const [name, base] of Object.entries(bases)) {
  peer(`what PEFT writes on ${name} gives PEFT's logits, or is refused by name`, async (folder) => {
    const ids = [5, 17, 200, 3, 99, 42, 7, 1];
    const jobs = rows(base, name === "llama").map(([what, options, refused, method], i) => ({
      ...{ what, refused, model: base.folder, method, options, ids },
      ...{ adapter: `${folder}/${i}`, out: `${folder}/${i}.logits` },
    }));
    await runScript("peft_written.py", jobs);
    using device = await openCpu();
    using model = await loadModel(base.folder, { device });
    for (const { what, refused, adapter, out } of jobs) {
      try {
        const { apply, trainable, frozen } = loadAdapter(adapter, model);
        assertEquals(refused, undefined, `${what} is refused`);
        const logits = await evaluate(
          apply(trainable, frozen, { inputIds: tensor(device, [ids], "i32") }, { whole: true }),
        ) as HostTensor;
        const distance = apart(logits.data, readFloats(out));
        assert(distance <= 1e-4, `${what}: ${distance} apart`);
      } catch (error) {
        if (!(error instanceof FileError) || refused === undefined) throw new Error(what, { cause: error });
        assert(error.message.includes(refused), `${what}: ${error.message}`);
      }
    }
  });
}
