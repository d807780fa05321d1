/** How each kind of objective's golden case is read: known by its tensors, its rows as examples, its options as an objective. */
import { loadAnyModel, type Loaded, type LoadedModel } from "../../models/mod.ts";
import { ignoredLabel } from "../../core/nn/loss.ts";
import type { HostTensor } from "../../core/tensor.ts";
import type { Example } from "../../data/examples.ts";
import { causal, causalLM } from "../../train/objectives/causal_lm.ts";
import { cosent, cosineError } from "../../train/objectives/cosine.ts";
import { cpo, simpo } from "../../train/objectives/cpo.ts";
import { distillation } from "../../train/objectives/distillation.ts";
import { dpo } from "../../train/objectives/dpo.ts";
import { type Judged, kto } from "../../train/objectives/kto.ts";
import { maskedLM } from "../../train/objectives/masked_lm.ts";
import type { Objective } from "../../train/objectives/objective.ts";
import { reward } from "../../train/objectives/reward.ts";
import { loadRewardModel } from "../../models/load/load_model.ts";
import { orpo } from "../../train/objectives/orpo.ts";
import type { Pair } from "../../train/objectives/pairs.ts";
import { ranking } from "../../train/objectives/ranking.ts";
import { tokenClassification } from "../../train/objectives/token_classification.ts";
import { triplet } from "../../train/objectives/triplet.ts";
import type { Tuple } from "../../train/objectives/tuples.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { modelConfig } from "./not_built.ts";

type Tensors = ReadonlyMap<string, HostTensor>;

/** What a kind of case needs. */
export interface Recipe {
  fits(io: Tensors, golden: GoldenCase): boolean;
  examples(io: Tensors, options: any): readonly Example[];
  objective(options: any, golden: GoldenCase): Objective;
  /** The model, where it is not a language model. */
  load?(path: string, options: any): Promise<(LoadedModel | Loaded<any>) & Disposable>;
  /** Metrics that are losses of other objectives on the same rows, less one of these. */
  readonly measured?: readonly { readonly name: string; readonly of: Objective; readonly less: string | null }[];
  checkReference?(io: Tensors, found: Readonly<Record<string, HostTensor>>, rtol: number): void;
}

/** Options by our names; one that is not known fails where it is checked. */
function renamed(options: Record<string, unknown>, names: Record<string, string> = {}): any {
  const camel = (name: string) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(options).map(([name, value]) => [names[name] ?? camel(name), value]));
}

/** The rows of a batch: what its masks leave of each. */
function rowsOf(io: Tensors, prefix = ""): Example[] {
  const [ids, mask, completion, labels] = ["input_ids", "attention_mask", "completion_mask", "labels"]
    .map((name) => io.get(prefix + name));
  const [rows, seq] = ids!.shape;
  return Array.from({ length: rows }, (_, row) => {
    const places = Array.from({ length: seq }, (_, t) => row * seq + t).filter((at) => mask!.data[at] !== 0);
    return {
      ids: places.map((at) => ids!.data[at]),
      labels: places.map((at) =>
        labels ? labels.data[at] : completion && completion.data[at] === 0 ? ignoredLabel : ids!.data[at]
      ),
    };
  });
}

/** The first half of the rows with the second. */
function pairsOf(io: Tensors): Pair[] {
  const rows = rowsOf(io), n = rows.length / 2;
  const margins = io.get("margin")?.data;
  return rows.slice(0, n).map((chosen, i) => ({
    ...chosen,
    rejected: rows[n + i],
    ...(margins && { margin: margins[i] }),
  }));
}

/** Rows with their labels, and each prompt with another's answer. */
function judgedOf(io: Tensors): Judged[] {
  const others = rowsOf(io, "KL_");
  return rowsOf(io).map((row, i) => ({ ...row, desirable: io.get("label")!.data[i] !== 0, other: others[i] }));
}

/** The rows of a batch of an encoder, with its labels and token types. */
function encoderRows(io: Tensors): Example[] {
  const column = (name: string, seq: number) => (places: readonly number[], row: number) =>
    places.map((t) => io.get(name)!.data[row * seq + t]);
  const mask = io.get("attention_mask")!, [, seq] = mask.shape;
  return rowsOf(io).map((example, row) => {
    const places = Array.from({ length: seq }, (_, t) => t).filter((t) => mask.data[row * seq + t] !== 0);
    return {
      ...example,
      labels: column("labels", seq)(places, row),
      ...(io.has("token_type_ids") && { tokenTypes: column("token_type_ids", seq)(places, row) }),
    };
  });
}

/** Anchors with positives, and with negatives where the loss reads these. */
function tuplesOf(io: Tensors, { loss = "mnrl" }: { readonly loss?: string }): Tuple[] {
  const [anchors, positives, negatives] = ["anchor_", "positive_", "negative_"].map((prefix) => rowsOf(io, prefix));
  const three = loss === "mnrl_hard" || loss === "triplet";
  return anchors.map((anchor, i) => ({
    ...anchor,
    others: three ? [positives[i], negatives[i]] : [positives[i]],
    score: io.get("score")!.data[i],
  }));
}

const byLoss: Readonly<Record<string, (options: any) => Objective>> = {
  mnrl: ranking,
  mnrl_hard: ranking,
  triplet: ({ cosine, ...options }) => triplet({ ...options, ...(cosine && { distance: "cosine" }) }),
  cosent,
  cosine_mse: () => cosineError,
};

const recipes: readonly Recipe[] = [
  {
    fits: (io) => io.has("original_ids") && io.has("labels"),
    examples: encoderRows,
    objective: (options) => maskedLM(renamed(options)),
    load: loadAnyModel as Recipe["load"],
  },
  {
    fits: (_, golden) => /ForTokenClassification$/.test(modelConfig(golden)?.architectures?.[0]),
    examples: encoderRows,
    objective: () => tokenClassification,
    load: loadAnyModel as Recipe["load"],
  },
  {
    fits: (io) => io.has("anchor_input_ids") && io.has("positive_input_ids"),
    examples: tuplesOf,
    objective: ({ loss = "mnrl", ...options }) => byLoss[loss](options),
    load: loadAnyModel as Recipe["load"],
  },
  {
    fits: (io) => io.has("ref_logps") && io.has("completion_mask") && !io.has("label"),
    examples: pairsOf,
    objective: (options) => dpo(renamed(options)),
    checkReference(io, { reference }, rtol) {
      const { data } = io.get("ref_logps")!, n = data.length / 2;
      const expected = Float32Array.from({ length: 2 * n }, (_, i) => data[i % 2 * n + (i >> 1)]);
      assertNear("ref_logps", reference, { shape: [n, 2], dtype: "f32", data: expected }, rtol);
    },
  },
  {
    fits: (io) => io.has("KL_input_ids"),
    examples: judgedOf,
    objective: (options) => kto(renamed(options)),
    checkReference(io, { reference, otherReference }, rtol) {
      assertNear("ref_logps", reference, io.get("ref_logps")!, rtol);
      if (otherReference) assertNear("ref_KL_logps", otherReference, io.get("ref_KL_logps")!, rtol);
    },
  },
  {
    fits: (_, golden) => hasMetric(golden, "log_odds_ratio"),
    examples: pairsOf,
    objective: (options) => orpo(renamed(options)),
  },
  {
    fits: (io, golden) => io.has("completion_mask") && hasMetric(golden, "rewards/margins"),
    examples: pairsOf,
    objective: (options) => {
      const names = { alpha: "nllWeight" };
      return "gamma" in options ? simpo(renamed(options, names)) : cpo(renamed(options, names));
    },
  },
  {
    fits: (io, golden) => io.has("rewards") && hasMetric(golden, "mean_reward"),
    examples: pairsOf,
    objective: (options) => reward(renamed(options)),
    load: loadRewardModel as Recipe["load"],
  },
  {
    fits: (io) => io.has("teacher_logits"),
    examples: (io) => {
      const { data, shape: [, seq, vocabSize] } = io.get("teacher_logits")!;
      return rowsOf(io).map((row, i) => ({
        ...row,
        teacherLogits: Float32Array.from(data.subarray(i * seq * vocabSize, (i * seq + row.ids.length) * vocabSize)),
      }));
    },
    objective: (options, golden) => {
      const vocabSize = golden.tensors("io.safetensors").get("teacher_logits")!.shape[2];
      return distillation({ ...renamed(options, { hinton: "labelWeight" }), teacher: { vocabSize } });
    },
  },
  {
    fits: (io) => io.has("packed_input_ids"),
    examples: (io) => rowsOf(io, "unpacked_"),
    objective: ({ packed: _, ...options }) => causal(renamed(options)),
  },
  {
    fits: (io, golden) => io.has("labels") && io.has("logits") && hasMetric(golden, "nll"),
    examples: (io) => rowsOf(io),
    objective: (options) => causal(renamed(options)),
    // What is added to the loss of a token, each by itself.
    measured: [
      { name: "nll", of: causalLM, less: null },
      { name: "smooth", of: causal({ labelSmoothing: 1 }), less: null },
      { name: "z", of: causal({ zLoss: 1 }), less: "nll" },
    ],
  },
];

const hasMetric = ({ info }: GoldenCase, name: string) =>
  Object.values<any>(info.entries).some(({ metrics }) => name in metrics);

/** What reads a case, by its tensors; or null. */
export function recipeOf(golden: GoldenCase): Recipe | null {
  const io = golden.tensors("io.safetensors");
  return recipes.find(({ fits }) => fits(io, golden)) ?? null;
}
