/** GGUF tensor names as Hugging Face names, and how each tensor's layout differs from Hugging Face's. */
import { type Family, type GgufLayout, type GgufModule, type GgufNames, hubNameOf } from "../../families/family.ts";
import { families } from "../../families/mod.ts";

/** A family whose GGUF files are read. */
export type GgufFamily = Family & { readonly gguf: GgufNames };

const inGguf = families.filter((family): family is GgufFamily => family.gguf !== undefined);

/** Architectures whose GGUF files are read, as these call them. */
export const ggufArchitectures: readonly string[] = [...new Set(inGguf.map(({ gguf }) => gguf.name))];

/** The family that a GGUF file's `general.architecture` names. */
export const ggufFamily = (name: string): GgufFamily | undefined => inGguf.find(({ gguf }) => gguf.name === name);

const placeOf = (module: GgufModule): readonly [string, GgufLayout] =>
  typeof module === "string" ? [module, "same"] : module;

/**
 * The Hugging Face name and layout of a GGUF tensor, `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; a name
 * without a rule keeps its own, so that it is reported as unexpected.
 */
export function huggingFaceName(family: GgufFamily, name: string): { name: string; layout: GgufLayout } {
  const parts = /^(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)$/.exec(name);
  const { outside, layers, inside } = family.gguf;
  const rules = parts?.[1] === undefined ? outside : inside;
  if (parts === null || !Object.hasOwn(rules, parts[2])) return { name, layout: "same" };
  const [, block, stem, kind] = parts;
  const [module, layout] = placeOf(rules[stem]);
  const path = block === undefined ? module : `${layers}.${block}.${module}`;
  return { name: `${hubNameOf(family, path)}.${kind}`, layout };
}

/**
 * The modules of a model of `layers` layers by Hugging Face's path, with the weight that each is in a GGUF file:
 * `model.layers.3.self_attn.q_proj` → `blk.3.attn_q.weight`.
 */
export function ggufModules(
  family: GgufFamily,
  layers: number,
): Map<string, { readonly tensor: string; readonly layout: GgufLayout }> {
  const { outside, inside, layers: list } = family.gguf;
  const places = (rules: GgufNames["inside"], path: string, tensor: string) =>
    Object.entries(rules).map(([stem, rule]) => {
      const [module, layout] = placeOf(rule);
      return [hubNameOf(family, path + module), { tensor: `${tensor}${stem}.weight`, layout }] as const;
    });
  const each = Array.from({ length: layers }, (_, i) => places(inside, `${list}.${i}.`, `blk.${i}.`));
  return new Map([...places(outside, "", ""), ...each.flat()]);
}
