/** An adapted model in PEFT's words: the names of its modules, and the options that make just this adapter. */
import type { Leaf, Model } from "../../core/model.ts";
import { flatten } from "../../core/tree.ts";
import type { Tuned } from "../../lora/mod.ts";
import type { AdapterConfigOptions } from "./config.ts";
import type { ModuleNames } from "../adapter_fit.ts";
import { mostFrequent } from "../adapter_pairs.ts";
import { tiedNames } from "../adapter_ties.ts";

/** The modules of a model: those of its weights, and further names of tied ones. */
export function moduleNames(model: Model<any, any, any>): ModuleNames[] {
  const { paths, leaves } = flatten<Leaf>(model.params);
  const hub = hubNameOf(model);
  const matrices = new Map<string, boolean>();
  paths.forEach((leafPath, i) => {
    const path = leafPath.replace(/\.(weight|bias)$/, "");
    matrices.set(path, matrices.get(path) || (leafPath.endsWith(".weight") && leaves[i].aval.shape.length === 2));
  });
  for (const [alias, module] of Object.entries(model.tied ?? {})) matrices.set(alias, matrices.get(module) ?? false);
  return [...matrices].map(([path, matrix]) => ({ path, hub: hub(path), matrix }));
}

/** PEFT's options for just what is trained. */
export function describeTuned(
  model: Model<any, any, any>,
  { matched, saved, plan, trainable }: Pick<Tuned<any, any, any>, "matched" | "saved" | "plan" | "trainable">,
): Omit<AdapterConfigOptions, "baseModel"> {
  const hub = hubNameOf(model);
  const r = mostFrequent(matched.map((m) => m.r)), alpha = mostFrequent(matched.map((m) => m.alpha));
  const others = <K extends "r" | "alpha">(key: K, usual: number) =>
    Object.fromEntries(matched.filter((m) => m[key] !== usual).map((m) => [hub(m.path), m[key]]));
  const tied = tiedNames(model, { plan });
  const by = (option: typeof saved[number]["by"]) => saved.filter((s) => s.by === option);
  const adapted = new Set(matched.map((m) => m.path));
  const biases = by("bias").map(({ path }) => path);
  return {
    r,
    alpha,
    targets: targetNames(model, matched.flatMap(({ path }) => [path, ...(tied.has(path) ? [tied.get(path)!] : [])])),
    rslora: matched.some((m) => m.scaling !== m.alpha / m.r),
    rankPattern: others("r", r),
    alphaPattern: others("alpha", alpha),
    dora: matched.some((m) => m.dora),
    loraBias: matched.some((m) => "biasB" in trainable[m.path]),
    bias: biases.length === 0 ? "none" : biases.every((path) => adapted.has(path)) ? "lora_only" : "all",
    modulesToSave: [...new Set(by("modulesToSave").map(({ path }) => hub(path)))],
    tokens: Object.fromEntries(by("trainableTokens").map(({ path, tokens }) => [lastName(path), tokens!])),
    tieAll: tied.size > 0,
    fanInFanOut: matched.some((m) => m.kind === "linear" && m.layout === "in,out"),
    taskType: taskOf(model, by("modulesToSave").some(({ path }) => path === "classifier")),
  };
}

/** PEFT's name of what a model is for. It takes a classifier of which no head was trained for a broken file. */
function taskOf(model: object, trainsHead: boolean): AdapterConfigOptions["taskType"] {
  if ("step" in model) return "CAUSAL_LM";
  if ("labels" in model) return trainsHead ? "SEQ_CLS" : null;
  return "embed" in model ? "FEATURE_EXTRACTION" : null;
}

const lastName = (path: string) => path.slice(path.lastIndexOf(".") + 1);

/** Modules as PEFT's target_modules: last names, or whole paths where those would mean more modules. */
function targetNames(model: Model<any, any, any>, paths: readonly string[]): string[] {
  const names = new Set(paths.map(lastName));
  const chosen = new Set(paths);
  const exact = moduleNames(model).every(({ path, matrix }) =>
    !matrix || !names.has(lastName(path)) || chosen.has(path)
  );
  return exact ? [...names].sort() : paths.map(hubNameOf(model));
}

/** A module's name in Hugging Face's class: the path itself where a model says nothing of it. */
export function hubNameOf(model: Model<any, any, any>): (path: string) => string {
  return (path) => model.hubName?.(path) ?? path;
}
