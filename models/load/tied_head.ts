import { sameShape } from "../../core/aval.ts";
import type { Names } from "../families/family.ts";
import { type ModelConfig, parseConfig } from "./config.ts";
import { matchName, type WeightSource } from "./weights.ts";

/**
 * The configuration that a file's weights have: one that ties the head to the embedding does not where the file holds a head
 * of its own that differs. Transformers (5) uses that head; one that is the same is a copy that was written all the same.
 */
export function configOfWeights(
  config: ModelConfig,
  source: WeightSource,
  { tiedHead, head: module = "lm_head", tables: [embedding] }: Pick<Names, "tiedHead" | "head" | "tables">,
): ModelConfig {
  if (tiedHead === undefined || !config.flag("tie_word_embeddings", tiedHead)) return config;
  const names = new Set(source.names);
  const [head, table] = [matchName(`${module}.weight`, names), tableIn(source, embedding)];
  if (head === null || table === null || isSame(source, head, table)) return config;
  return parseConfig({ ...config.raw, tie_word_embeddings: false }, config.path);
}

/** The tensor of a table, wherever in the tree it is. */
const tableIn = ({ names }: WeightSource, table: string): string | null =>
  names.find((name) => name === `${table}.weight` || name.endsWith(`.${table}.weight`)) ?? null;

function isSame(source: WeightSource, a: string, b: string): boolean {
  const [x, y] = [source.entry(a), source.entry(b)];
  if (x.stored !== y.stored || !sameShape(x.shape, y.shape)) return false;
  const [own, other] = [source.read(a).data, source.read(b).data];
  return own.every((value, i) => value === other[i]);
}
