/** An adapted model in PEFT's words: the names of its modules, and the options that make just this adapter. */
import type { Leaf, Model } from "../../core/model.ts";
import { flatten } from "../../core/tree.ts";
import type { Plan } from "../../lora/mod.ts";
import { type AdapterConfigOptions, makeAdapterConfig } from "./config.ts";
import type { ModuleNames } from "../adapter_fit.ts";
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

/** PEFT's configuration of just what is trained. */
export function describeTuned(
  model: Model<any, any, any>,
  plan: Plan,
  { baseModel, dropout = 0 }: { readonly baseModel: string | null; readonly dropout?: number },
): Record<string, unknown> {
  const { adapted, edits } = plan;
  const [{ method }] = adapted;
  const tied = tiedNames(model, { plan });
  const targets = adapted.flatMap(({ path }) => [path, ...(tied.has(path) ? [tied.get(path)!] : [])]);
  const spell = speller(model, targets), named = [...new Set(targets.map(spell))];
  const groups = Map.groupBy([...adapted, ...edits], (site) => site.method);
  const own = Object.assign({}, ...[...groups].map(([method, sites]) => method.config(sites, { adapted, spell })));
  const dropped = method.options.dropout?.peft;
  return makeAdapterConfig({ ...own, ...(dropped && { [dropped]: dropout }) }, {
    peftType: method.peftType!,
    ...(!method.whole && { targets: spell === lastName ? named.sort() : named }),
    tieAll: tied.size > 0,
    baseModel,
    taskType: taskOf(
      model,
      edits.some(({ path, saved }) => saved.by === "modulesToSave" && path.split(".")[0] === model.head?.split(".")[0]),
    ),
  });
}

/** PEFT's name of what a model is for. It takes a classifier of which no head was trained for a broken file. */
function taskOf({ task, ...model }: Pick<Model, "task">, trainsHead: boolean): AdapterConfigOptions["taskType"] {
  if ("step" in model) return "CAUSAL_LM";
  if (task === "SEQ_CLS" || task === "TOKEN_CLS") return trainsHead ? task : null;
  return task === "FEATURE_EXTRACTION" ? task : null;
}

const lastName = (path: string) => path.slice(path.lastIndexOf(".") + 1);

/** Modules as PEFT's target_modules: by their last names, or by whole paths where those would mean more modules. */
function speller(model: Model<any, any, any>, paths: readonly string[]): (path: string) => string {
  const names = new Set(paths.map(lastName));
  const chosen = new Set(paths);
  const exact = moduleNames(model).every(({ path, matrix }) =>
    !matrix || !names.has(lastName(path)) || chosen.has(path)
  );
  return exact ? lastName : hubNameOf(model);
}

/** A module's name in Hugging Face's class: by default the path itself. */
export function hubNameOf(model: Model<any, any, any>): (path: string) => string {
  return (path) => model.hubName?.(path) ?? path;
}
