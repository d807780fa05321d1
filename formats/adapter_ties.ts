/**
 * What is trained once for both uses of a tied weight, as PEFT's `ensure_weight_tying` keeps it: under both names. Added to
 * the embedding [V, D] is s·(B·A)ᵀ with A [r, V] and B [D, r]; the head, which is the same matrix, has A' = Bᵀ [r, D] and
 * B' = Aᵀ [V, r].
 */
import { FileError } from "../core/errors.ts";
import type { Model } from "../core/model.ts";
import { matchName } from "../models/load/weights.ts";
import type { Tuned } from "../lora/mod.ts";
import { type AdapterConfig, adapterScaling, rankOf } from "./peft/config.ts";
import type { AdapterFiles, AdapterTensor } from "./peft/files.ts";
import { escape, type HostEntry } from "./adapter_fit.ts";
import { transposed } from "./adapter_pairs.ts";
import { toF32 } from "./host_tensors.ts";

type AnyModel = Model<unknown, unknown, unknown>;

/** The other name of each weight that is adapted or trained whole in every use, by the path that trains it. */
export function tiedNames(
  model: AnyModel,
  { plan }: Pick<Tuned<unknown, unknown, unknown>, "plan">,
): Map<string, string> {
  const aliases = Object.entries(model.tied ?? {});
  const names = aliases.flatMap(([alias, module]) => [[alias, module], [module, alias]] as const);
  const all = new Set(plan.adapted.filter((m) => m.only === null).map((m) => m.path));
  const whole = new Set(
    plan.edits.filter((e) => e.saved.by === "modulesToSave" && e.split === null)
      .map((e) => e.path),
  );
  return new Map(names.filter(([path]) => all.has(path) || whole.has(path)));
}

/** The same change under the other name: a pair turned round, or the same whole weight. */
export function underOtherName({ A, B, weight }: HostEntry): HostEntry {
  return A && B ? { A: transposed(toF32(B)), B: transposed(toF32(A)) } : { weight };
}

/**
 * An adapter without the head's copy, where the file says that both uses of a weight are trained as one and holds both, and
 * the names that are left out. Where it holds one name, or scales the two otherwise, each use is its own, as PEFT computes it.
 *
 * @throws {FileError} where the copies are not the same
 */
export function withoutTiedCopies(
  files: AdapterFiles,
  model: AnyModel,
): { files: AdapterFiles; left: readonly string[] } {
  let { tensors, config } = files;
  if (!config.ensure_weight_tying) return { files, left: [] };
  const left: string[] = [];
  for (const [alias, module] of Object.entries(model.tied ?? {})) {
    const [head, embedding] = [alias, module].map((path) => partsOf(tensors, model.hubName?.(path) ?? path));
    for (const leaf of ["A", "B", "weight", "base"] as const) {
      const other = leaf === "A" || leaf === "B" ? { A: "B" as const, B: "A" as const }[leaf] : leaf;
      const [own, copied] = [head.get(leaf), embedding.get(other)];
      if (own === undefined || copied === undefined) continue;
      const [a, b] = [own.tensor, copied.tensor].map(toF32);
      if (same(a.data, (other === leaf ? b : transposed(b)).data)) continue;
      throw new FileError(
        `${files.path} says ensure_weight_tying, but ${own.key} is not ${copied.key}${
          other === leaf ? "" : " transposed"
        }: save the adapter again.`,
      );
    }
    const scalings = [head, embedding].map((parts) => scalingOf(files, parts));
    const trained = [head, embedding].map((parts) => [...parts.keys()].filter((leaf) => leaf !== "base").sort().join());
    const alike = scalings[0] === scalings[1] && trained[0] === trained[1] && ["A,B", "weight"].includes(trained[0]);
    if (!alike) {
      config = ofOneRank(config, head, embedding);
      continue;
    }
    const copies = new Set(head.values());
    tensors = tensors.filter((tensor) => !copies.has(tensor));
    left.push(alias);
  }
  config = { ...config, ensure_weight_tying: left.length > 0 };
  return { files: { ...files, config, tensors }, left };
}

/**
 * The configuration where PEFT ties a pair to one of another rank: the tensors' rank, and the scaling of the rank that the
 * pair's own name has.
 */
function ofOneRank(config: AdapterConfig, ...uses: readonly ReadonlyMap<string, AdapterTensor>[]): AdapterConfig {
  const pairs = uses.flatMap((parts) => {
    const A = parts.get("A");
    return A ? [{ module: A.module, is: A.tensor.shape[0], stated: rankOf(config, A.module) }] : [];
  });
  if (!pairs.some(({ is, stated }) => is === stated)) return config;
  for (const { module, is, stated } of pairs) {
    if (is === stated) continue;
    const alpha = adapterScaling(config, module, stated) * (config.use_rslora ? Math.sqrt(is) : is);
    // The first pattern that matches counts, and one of this name may be there.
    const put = (pattern: Readonly<Record<string, number>>, value: number) => {
      const own = { [escape(module)]: value };
      return { ...own, ...pattern, ...own };
    };
    const { rank_pattern, alpha_pattern } = config;
    config = { ...config, rank_pattern: put(rank_pattern, is), alpha_pattern: put(alpha_pattern, alpha) };
  }
  return config;
}

function same(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.from(a).every((x, i) => x === b[i]);
}

function partsOf(tensors: readonly AdapterTensor[], hub: string): Map<string, AdapterTensor> {
  const own = tensors.filter(({ module }) => matchName(module, new Set([hub])) === hub);
  return new Map(own.map((tensor) => [tensor.part.leaf, tensor]));
}

/** By the rank that the configuration says, which PEFT also takes where the tied tensors have another. */
function scalingOf({ config }: AdapterFiles, parts: ReadonlyMap<string, AdapterTensor>): number | null {
  const module = parts.get("A")?.module;
  return module === undefined ? null : adapterScaling(config, module, rankOf(config, module));
}
