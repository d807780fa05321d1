/** ModernBERT: Warner et al. 2024, "Smarter, Better, Faster, Longer", in Hugging Face's layout. */
import { FileError, ShapeError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, TokenInputs } from "../../core/model.ts";
import { attention } from "../../core/nn/attention.ts";
import { layerNorm } from "../../core/nn/norm.ts";
import { rope } from "../../core/nn/rope.ts";
import { full, reshape } from "../../core/ops/broadcast.ts";
import { constant } from "../../core/ops/constant.ts";
import { add, convert, max, mul, sub } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { iota, split } from "../../core/ops/structure.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import type { ModelConfig } from "../load/config.ts";
import { readTokenInputs } from "../token_inputs.ts";
import { encoder, type EncoderFamily, firstToken, meanOfTokens } from "./encoder.ts";
import { type TextSizes, usualKeys } from "./family.ts";
import {
  type ActivationName,
  activationOf,
  at,
  flatLinear,
  flatNorm,
  type FlatShapes,
  type Linear,
  linear,
  linearAt,
  oneOf,
  readActivation,
} from "./layers.ts";
import { readRotary, type Rotary, rotaryAngles } from "./rotary.ts";

/** A norm; most have no shift. */
export interface ModernBertNorm {
  /** The scale. */
  readonly weight: Leaf;
  /** The shift. */
  readonly bias?: Leaf;
}

/** One layer. D is the width, F the feed-forward width. */
export interface ModernBertLayer {
  /** Not in the first layer. */
  readonly attn_norm?: ModernBertNorm;
  /** `Wqkv` [3·D, D]: queries, keys, values; `Wo` [D, D]. */
  readonly attn: { readonly Wqkv: Linear; readonly Wo: Linear };
  /** [D]: the norm before the feed-forward part. */
  readonly mlp_norm: ModernBertNorm;
  /** `Wi` [2·F, D]: what is activated, and its gate; `Wo` [D, F]. */
  readonly mlp: { readonly Wi: Linear; readonly Wo: Linear };
}

/** The weights of a ModernBERT, named as in its files (without `model.`). */
export interface ModernBertParams {
  /** What tokens begin as: [vocabulary, D]. */
  readonly embeddings: { readonly tok_embeddings: { readonly weight: Leaf }; readonly norm: ModernBertNorm };
  /** The layers. */
  readonly layers: readonly ModernBertLayer[];
  /** [D]: the norm after the last layer. */
  readonly final_norm: ModernBertNorm;
}

/** The sizes of one ModernBERT. */
export interface ModernBertSizes extends TextSizes {
  readonly activation: ActivationName;
  readonly headActivation: ActivationName;
  readonly biases: {
    readonly norm: boolean;
    readonly attention: boolean;
    readonly mlp: boolean;
    readonly head: boolean;
    readonly decoder: boolean;
  };
  /** What a classifier reads of a text: its first token, or the mean of all. */
  readonly pooling: "cls" | "mean";
  /** Whether each layer sees only tokens near by. */
  readonly isLocal: readonly boolean[];
  /** How far a local layer sees, to each side. */
  readonly reach: number;
  /** How positions turn queries and keys: of global layers, and of local ones. */
  readonly rotary: { readonly global: Rotary; readonly local: Rotary };
}

const kinds = ["full_attention", "sliding_attention"];

/** Which layers are local: as the file lists them, else all but every n-th. */
function localLayers(config: ModelConfig, layers: number): readonly boolean[] {
  const types = config.raw.layer_types ?? null;
  if (types === null) {
    const every = config.integer("global_attn_every_n_layers", 3);
    return Array.from({ length: layers }, (_, i) => i % every !== 0);
  }
  if (!Array.isArray(types) || types.length !== layers || types.some((type) => !kinds.includes(type))) {
    throw new FileError(
      `${config.path} says layer_types is ${JSON.stringify(types)}, where ${layers} of ${
        kinds.join(" and ")
      } are expected.`,
    );
  }
  return types.map((type) => type === kinds[1]);
}

/** The positions of one kind of layer: in its own part of `rope_parameters`, or as older files spell their base. */
function rotaryOf(config: ModelConfig, kind: string, oldKey: string, base: number, headDim: number) {
  const given = (config.raw.rope_parameters ?? {}) as Record<string, Record<string, unknown> | undefined>;
  const rope = { rope_theta: config.number(oldKey, base), rope_type: "default", ...given[kind] };
  return readRotary(config, headDim, { parameters: rope });
}

function sizesOf(config: ModelConfig, sizes: TextSizes): ModernBertSizes {
  return {
    ...sizes,
    activation: readActivation(config, "hidden_activation", "gelu"),
    headActivation: readActivation(config, "classifier_activation", "gelu"),
    biases: {
      norm: config.flag("norm_bias", false),
      attention: config.flag("attention_bias", false),
      mlp: config.flag("mlp_bias", false),
      head: config.flag("classifier_bias", false),
      decoder: config.flag("decoder_bias", true),
    },
    pooling: oneOf(config, "classifier_pooling", ["cls", "mean"], "cls"),
    isLocal: localLayers(config, sizes.layers),
    reach: Math.floor(config.integer("local_attention", 128) / 2),
    rotary: {
      global: rotaryOf(config, kinds[0], "global_rope_theta", 160_000, sizes.headDim),
      local: rotaryOf(config, kinds[1], "local_rope_theta", 10_000, sizes.headDim),
    },
  };
}

function shapes({ vocabSize, width, innerWidth, layers, biases }: ModernBertSizes): FlatShapes {
  const layer = (i: number): FlatShapes => ({
    ...(i > 0 && flatNorm(`layers.${i}.attn_norm`, width, biases.norm)),
    ...flatLinear(`layers.${i}.attn.Wqkv`, width, 3 * width, biases.attention),
    ...flatLinear(`layers.${i}.attn.Wo`, width, width, biases.attention),
    ...flatNorm(`layers.${i}.mlp_norm`, width, biases.norm),
    ...flatLinear(`layers.${i}.mlp.Wi`, width, 2 * innerWidth, biases.mlp),
    ...flatLinear(`layers.${i}.mlp.Wo`, innerWidth, width, biases.mlp),
  });
  return Object.assign(
    { "embeddings.tok_embeddings.weight": [vocabSize, width] },
    flatNorm("embeddings.norm", width, biases.norm),
    ...Array.from({ length: layers }, (_, i) => layer(i)),
    flatNorm("final_norm", width, biases.norm),
  );
}

const norm = (x: Value, { weight, bias }: ModernBertNorm, eps: number) =>
  layerNorm(x, weight, bias ?? full([x.shape.at(-1)!], 0), eps);

function states(sizes: ModernBertSizes, params: ModernBertParams, inputs: TokenInputs, byBlocks: boolean): Value[] {
  const { width, heads, headDim, eps, isLocal, reach, rotary, layers } = sizes;
  const { ids, seen: mask, positionIds, documentStart } = readTokenInputs(inputs, sizes);
  if (documentStart !== undefined) {
    throw new ShapeError(
      "a ModernBERT reads one text a row: documents can't be packed where every token sees all others",
    );
  }
  const [b, t] = ids.shape, positions = positionIds ?? iota([1, t], 1);
  const [global, local] = [rotary.global, rotary.local].map((kind) =>
    rotaryAngles(kind, positions, () => constant(t, "i32"))
  );
  const angles = { global, local };
  // A window to both sides: keys from i - reach on, and, as over a cache whose first query stands at `reach`, up to i + reach.
  const first = max(sub(iota([b, t], 1), reach), 0), offset = constant(reach, "i32");
  const activate = activationOf(sizes.activation);

  const { embeddings } = params;
  const words = convert(gather(embeddings.tok_embeddings.weight, ids), "f32");
  const states = [norm(words, embeddings.norm, eps)];
  params.layers.forEach(({ attn_norm, attn, mlp_norm, mlp }, i) => {
    const block = (x: Value) => {
      const seen = attn_norm === undefined ? x : norm(x, attn_norm, eps);
      const [q, k, v] = split(linear(seen, attn.Wqkv), 2, 3).map((part) => reshape(part, [b, t, heads, headDim]));
      const turned = isLocal[i] ? angles.local : angles.global;
      const bounds = isLocal[i] ? { causal: true, first, offset } : { causal: false };
      const mixed = attention(rope(q, turned), rope(k, turned), v, { mask, ...bounds });
      const sum = add(x, linear(reshape(mixed, [b, t, width]), attn.Wo));
      const [inner, gate] = split(linear(norm(sum, mlp_norm, eps), mlp.Wi), 2, 2);
      return add(sum, linear(mul(activate(inner), gate), mlp.Wo));
    };
    states.push((byBlocks ? checkpoint(block) : block)(states[i]));
  });
  states[layers] = norm(states[layers], params.final_norm, eps);
  return states;
}

/** The layer that all heads begin with. */
const headShapes = ({ width, biases }: ModernBertSizes): FlatShapes => ({
  ...flatLinear("head.dense", width, width, biases.head),
  ...flatNorm("head.norm", width, biases.norm),
});
const headOf = ({ headActivation, eps }: ModernBertSizes, params: unknown, states: Value): Value => {
  const inner = activationOf(headActivation)(linear(states, linearAt(params, "head.dense")));
  return norm(inner, at(params, "head.norm") as ModernBertNorm, eps);
};
const head = { beside: ["head"], shapes: headShapes, features: headOf };

export const modernbert: EncoderFamily<ModernBertParams, ModernBertSizes> = encoder<ModernBertParams, ModernBertSizes>({
  modelType: "modernbert",
  models: "ModernBERT and its like",
  own: "rotary; two layers of three see only tokens near by, on both sides, with a rotation of their own",
  className: "ModernBertModel",
  prefix: "",
  inside: "model.",
  tables: ["tok_embeddings"],
  keys: { ...usualKeys, eps: "norm_eps" },
  defaults: { context: 8192, eps: 1e-5 },
  example: { local_attention: 4, layer_types: kinds, norm_bias: true, classifier_pooling: "mean" },
  parts: { Wqkv: ["q", "k", "v"], Wi: ["inner", "gate"] },
  sizes: sizesOf,
  shapes,
  states,
  heads: {
    SEQ_CLS: {
      ...head,
      className: "ModernBertForSequenceClassification",
      output: "classifier",
      features: (sizes, params, states, inputs) =>
        headOf(sizes, params, sizes.pooling === "cls" ? firstToken(states) : meanOfTokens(states, inputs)),
    },
    TOKEN_CLS: { ...head, className: "ModernBertForTokenClassification", output: "classifier" },
    MASKED_LM: {
      ...head,
      className: "ModernBertForMaskedLM",
      output: "decoder",
      bias: ({ biases }) => biases.decoder ? "decoder.bias" : null,
    },
  },
});
