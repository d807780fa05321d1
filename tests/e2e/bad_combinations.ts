/** Mistakes in combining adapters and in turning them into LoRA, as rows of the table of bad inputs. */
import { adapter, all, key, weights, zeros } from "./bad_adapters.ts";

const second = (change?: Parameters<typeof adapter>[0], metadata?: Record<string, string>) =>
  adapter(change, { place: "second", metadata });
const combine = (...more: string[]) => ["lowrank", "combine", "adapter", "second", "--out", "out/both", ...more];
const recorded = (sha256: string) => ({
  ...{ "base.name": "model", "base.sha256": sha256.repeat(64), "base.stored": "F32" },
  ...{ "base.dtype": "f32", "base.quantization": "none" },
});

/** The rows. */
export const combinations = [
  {
    name: "One adapter to combine",
    args: ["lowrank", "combine", "adapter", "--weights", "1", "--out", "out/both"],
    files: adapter(),
    sentence: "error: combining takes at least two adapters: name their folders",
    code: 2,
  },
  {
    name: "Adapters to combine without weights",
    args: combine(),
    files: all(adapter(), second()),
    sentence: "error: no --weights are given: one number for each adapter, 0.7,0.3",
    code: 2,
  },
  {
    name: "Fewer weights than adapters",
    args: combine("--weights", "0.7"),
    files: all(adapter(), second()),
    sentence: "error: --weights has 1 numbers for 2 adapters: give one for each",
    code: 2,
  },
  {
    name: "A weight that is no number",
    args: combine("--weights", "-0.7,much"),
    files: all(adapter(), second()),
    sentence: 'error: --weights has "much", which is no number',
    code: 2,
  },
  {
    name: "A combination of adapters into one of them",
    args: ["lowrank", "combine", "adapter", "second", "--weights", "1,1", "--out", "second"],
    files: all(adapter(), second()),
    sentence: "error: second is one of the adapters, which are not overwritten: choose another folder.",
    code: 1,
  },
  {
    name: "Pruning without a density",
    args: combine("--weights", "1,1", "--method", "ties"),
    files: all(adapter(), second()),
    sentence: "error: combining by ties takes a density, the fraction of values that is kept: above 0 and at most 1, …",
    code: 1,
  },
  {
    name: "A density where nothing is pruned",
    args: combine("--weights", "1,1", "--density", "0.5"),
    files: all(adapter(), second()),
    sentence: "error: density says nothing about combining by svd: leave it out",
    code: 1,
  },
  {
    name: "Adding factors of unequal ranks",
    args: combine("--weights", "1,1", "--method", "linear"),
    files: all(
      adapter(),
      second((tensors, config) => {
        for (const [side, shape] of [["A", [3, 16]], ["B", [48, 3]]] as const) tensors.set(key(side), zeros(...shape));
        config.r = 3;
      }),
    ),
    sentence: 'error: "transformer.h.0.attn.c_attn" has the ranks 2 and 3: "linear" adds A to A, which takes equal …',
    code: 1,
  },
  {
    name: "An svd of more ranks than a weight has",
    args: combine("--weights", "1,1", "--svd-rank", "17"),
    files: all(adapter(), second()),
    sentence:
      'error: svdRank is 17, but "transformer.h.0.attn.c_attn" has 16 inputs and 48 outputs: it takes at most 16',
    code: 1,
  },
  {
    name: "Adapters of models of other sizes",
    args: combine("--weights", "1,1"),
    files: all(adapter(), second((tensors) => tensors.set(key("A"), zeros(2, 8)))),
    sentence: `error: second/adapter_model.safetensors has transformer.h.0.attn.c_attn as [48,8] and ${weights} as ` +
      `[48,16]: only adapters of one model are combined.`,
    code: 1,
  },
  {
    name: "Adapters that record other bases",
    args: combine("--weights", "1,1"),
    files: all(adapter(undefined, { metadata: recorded("a") }), second(undefined, recorded("b"))),
    sentence: `error: ${weights} was trained on model (F32, sha256 aaaaaaaaaaaa…), and ` +
      `second/adapter_model.safetensors on model (F32, sha256 bbbbbbbbbbbb…): combine adapters of one base, …`,
    code: 1,
  },
  {
    name: "A combination with a magnitude",
    args: combine("--weights", "1,1"),
    files: all(
      adapter(),
      second((tensors, config) => {
        tensors.set("base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector", zeros(48));
        config.use_dora = true;
      }),
    ),
    sentence: "error: second/adapter_model.safetensors has what a sum of pairs can't express. Without a place there …",
    code: 1,
  },
  {
    name: "A combination with an activated LoRA",
    args: combine("--weights", "1,1"),
    files: all(adapter(), second((_, config) => config.alora_invocation_tokens = [5, 6])),
    sentence:
      "error: second/adapter_model.safetensors acts only from its invocation on (alora_invocation_tokens), which " +
      "a sum of pairs can't express: use it as it is.",
    code: 1,
  },
  {
    name: "LoRA of no rank",
    args: ["lowrank", "convert", "adapter", "--to", "lora", "--out", "out/l"],
    files: adapter(),
    sentence: "error: --to lora takes a --rank: give a whole number",
    code: 2,
  },
  {
    name: "A rank for another format",
    args: ["lowrank", "convert", "adapter", "--to", "mlx", "--rank", "4", "--out", "out/l"],
    files: adapter(),
    sentence: "error: --rank is for --to lora",
    code: 2,
  },
  {
    name: "LoRA of a rank larger than the layer",
    args: ["lowrank", "convert", "adapter", "--to", "lora", "--rank", "17", "--out", "out/l"],
    files: adapter(),
    sentence: 'error: rank is 17, but "h.0.attn.c_attn" is f32[16,48]: it takes a whole number from 1 to 16',
    code: 1,
  },
];
