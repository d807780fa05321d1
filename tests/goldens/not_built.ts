/** What golden cases may ask for that is not supported yet, by name. A case that needs anything else that is not here fails. */
import { pathKind } from "../../models/load/files/byte_source.ts";
import { methods } from "../../lora/mod.ts";
import { familyOf } from "../../models/families/mod.ts";
import type { GoldenCase } from "./golden_case.ts";

/** Architectures, as config.json names them. */
const architectures = [
  ...["gemma2", "gemma3_text", "gemma4_text", "gpt_neox", "gpt_oss", "granite", "granitemoe"],
  ...["lfm2", "mixtral", "olmo2", "olmoe", "phi3", "qwen3_moe", "smollm3"],
  ...["switch_transformers", "t5", "vit"],
];
/** Methods, as PEFT names them, but for those that are. */
const unsupported = [
  ...["ADALORA", "IA3", "LOHA", "LOKR", "MISS", "OFT", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "SHIRA"],
  ...["TRAINABLE_TOKENS", "VERA"],
].filter((type) => !Object.values(methods).some(({ peftType }) => peftType === type));
/** Keys of LoRA's configuration that mean another method. */
const loraKeys = ["layer_replication", "target_parameters"];
/** Objectives: the name of a case after `obj-`. */
const objectives = ["grpo"];

/** A file's JSON, where it is there. */
function jsonAt(path: string): any {
  return pathKind(path) === "file" ? JSON.parse(Deno.readTextFileSync(path)) : null;
}

/** The configuration of the model that a case has or names. */
export function modelConfig(golden: GoldenCase): any {
  const own = jsonAt(`${golden.folder}/model/config.json`);
  return own ?? (golden.base === null ? null : jsonAt(`${golden.base}/config.json`));
}

/** Every adapter's configuration in a case's own folders. */
function adapterConfigs(golden: GoldenCase): any[] {
  const folders = [...Deno.readDirSync(golden.folder)].filter((entry) => entry.isDirectory).map(({ name }) => name);
  return folders.map((name) => jsonAt(`${golden.folder}/${name}/adapter_config.json`)).filter((c) => c !== null);
}

/** Why a case can't be run yet, or null. */
export function notBuilt(golden: GoldenCase): string | null {
  const config = modelConfig(golden), adapters = adapterConfigs(golden);
  const objective = objectives.find((name) => golden.id === `obj-${name}` || golden.id.startsWith(`obj-${name}-`));
  const named: [string, readonly string[], readonly unknown[]][] = [
    ["the objective", objectives, [objective]],
    ["the architecture", architectures.filter((name) => familyOf(name) === undefined), [config?.model_type]],
    ["the method", unsupported, adapters.map((a) => a.peft_type)],
    ["LoRA with", loraKeys, loraKeys.filter((key) => adapters.some((a) => a[key] && Object.keys(a[key]).length > 0))],
  ];
  for (const [what, list, found] of named) {
    const name = found.find((x) => list.includes(x as string));
    if (name !== undefined) return `${what} ${name} is not supported yet`;
  }
  return null;
}
