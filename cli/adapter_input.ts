/** An adapter that a command is given, in whichever format, and the base that it belongs to. */
import { OptionError } from "../core/errors.ts";
import { anyLoader, type AnyModel, architectures, outlineEncoder } from "../models/load/load_model.ts";
import type { LoadOptions, Outlined } from "../models/load/loader.ts";
import type { ModelConfig } from "../models/load/config.ts";
import { pathKind, readJsonObject } from "../models/load/files/byte_source.ts";
import { openModel } from "../models/load/place.ts";
import { currentPath } from "../models/load/files/staged_folder.ts";
import type { LoadedAdapter } from "../formats/adapter.ts";
import { matchesWhole } from "../formats/peft/config.ts";
import { type AdapterFiles, readAdapter } from "../formats/peft/files.ts";
import { readGgufAdapter } from "../formats/gguf.ts";
import { isMlxAdapter, readMlxAdapter } from "../formats/mlx.ts";
import { trainOptions } from "../train/options/config.ts";
import { causalLM } from "../train/objectives/causal_lm.ts";
import { classification } from "../train/objectives/classification.ts";
import type { Objective } from "../train/objectives/objective.ts";
import type { Terminal } from "./command.ts";
import { type Purpose, readLabels } from "./open_model.ts";

/** Whether another base is taken than the one that an adapter was trained on. */
export const anyBaseOption = trainOptions.anyBase;

/** Says what a person should know of an adapter. */
export function logAdapter(
  adapter: string,
  { notes }: Pick<LoadedAdapter<any, any, any>, "notes">,
  terminal: Terminal,
): void {
  for (const note of notes) terminal.warn(`note: ${adapter}: ${note}`);
}

/** The formats of adapters. */
export type AdapterFormat = "peft" | "gguf" | "mlx";

/** The format of what lies at a path, by the files that are there. */
export function adapterFormat(path: string): AdapterFormat {
  if (path.toLowerCase().endsWith(".gguf")) return "gguf";
  return pathKind(path) === "folder" && isMlxAdapter(path) ? "mlx" : "peft";
}

/** The path of an adapter's base: the given model, or else the one that the adapter names. */
export function basePath(path: string, model: string | undefined): string {
  const named = model ?? namedBase(path);
  if (named !== null) return named;
  throw new OptionError(`${path} does not say which model it belongs to: give it with --model`);
}

/** Longer ones no system has. */
const longestPath = 4096;

/**
 * The base that an adapter names: a path or a name on the hub, or null.
 *
 * @throws {OptionError} for an address: nothing is fetched from anywhere because a file says so
 */
export function namedBase(path: string): string | null {
  const format = adapterFormat(path);
  const named = format === "peft"
    ? readAdapter(path).config.base_model_name_or_path
    : format === "mlx"
    ? readJsonObject(currentPath(path, "adapter_config.json")).model
    : null;
  if (typeof named !== "string" || named === "") return null;
  if (/^[a-z][a-z\d+.-]+:|\p{Cc}/iu.test(named) || named.length > longestPath) {
    throw new OptionError(
      `${path} names ${
        JSON.stringify(named.slice(0, 80))
      } as its base, which is neither a path nor a name on the hub: give ` +
        `the model with --model.`,
    );
  }
  return named;
}

/** The configuration of a model, of which nothing else is read. */
export async function configOf(model: string): Promise<ModelConfig> {
  using files = await openModel(model, architectures, {});
  return files.config;
}

/** Reads an adapter in any format. Those of llama.cpp and mlx-lm are only understood with their base's configuration. */
export async function readAnyAdapter(path: string, model: string | undefined): Promise<AdapterFiles> {
  const format = adapterFormat(path);
  if (format === "peft") return readAdapter(path);
  const config = await configOf(basePath(path, model));
  return format === "gguf" ? readGgufAdapter(path, config) : readMlxAdapter(path, config);
}

/**
 * The labels of the classifier that an adapter is for, in the order of its outputs: those beside it, else numbered ones; null
 * where it is for no classifier.
 */
function labelsOfAdapter(path: string): readonly string[] | null {
  if (adapterFormat(path) !== "peft") return null; // the other tools' are for models that continue text
  const own = readLabels(path);
  if (own !== null) return own;
  const { config, tensors } = readAdapter(path);
  const head = tensors.find(({ module, part }) => part.ending === ".weight" && matchesWhole("classifier", module));
  if (head === undefined && config.task_type !== "SEQ_CLS") return null;
  return Array.from({ length: head?.tensor.shape[0] ?? 0 }, (_, i) => `LABEL_${i}`);
}

/** What an adapter is for: its files name a task; `rows` says which of the task's objectives, where there are rows. */
export function purposeOfAdapter(path: string, rows?: Objective): Purpose {
  const labels = labelsOfAdapter(path);
  const classes = readLabels(path) ?? undefined;
  const first = labels === null ? causalLM : classification;
  const objective = rows?.task === first.task ? rows : first;
  return labels === null ? { objective } : { objective, classes, labels };
}

/** Opens the base of an adapter without reading its weights: as a classifier where the adapter is for one. */
export async function outlineBase(
  base: string,
  adapter: string,
  options: LoadOptions,
): Promise<Outlined<AnyModel>> {
  const labels = labelsOfAdapter(adapter);
  if (labels !== null) {
    const given = { ...options, ...(labels.length > 0 && { labels }) };
    return await outlineEncoder("SEQ_CLS", base, given) as unknown as Outlined<AnyModel>;
  }
  const opened = await openModel(base, architectures, options, (config) => anyLoader(config).check(config));
  return anyLoader(opened.config).outline(opened, options);
}

/** Keys that say nothing about an adapter, and values that count as absent. */
const dull = ["peft_type", "peft_version", "inference_mode", "auto_mapping", "revision"];
const usual: Readonly<Record<string, unknown>> = {
  init_lora_weights: true,
  megatron_core: "megatron.core",
  qalora_group_size: 16,
};

/** The unusual parts of an adapter's configuration, r and alpha first. */
export function notableOptions(
  { config: { r, lora_alpha, ...rest } }: Pick<AdapterFiles, "config">,
): [string, unknown][] {
  const isEmpty = (v: unknown) =>
    v === null || v === false || v === 0 || v === "none" || (typeof v === "object" && Object.keys(v!).length === 0);
  const notable = Object.entries(rest).filter(([key, v]) => !dull.includes(key) && !isEmpty(v) && usual[key] !== v);
  return [...(r === undefined ? [] : [["r", r], ["lora_alpha", lora_alpha]] as [string, unknown][]), ...notable];
}
