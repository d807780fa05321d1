/**
 * One adapter for both uses of a tied weight, as PEFT's `ensure_weight_tying` keeps it: under both names. What is added to
 * the embedding [V, D] is s·(B·A)ᵀ with A [r, V] and B [D, r]; the head, which is the same matrix, has A' = Bᵀ [r, D] and
 * B' = Aᵀ [V, r].
 */
import { FileError } from "../core/errors.ts";
import type { Model } from "../core/model.ts";
import type { HostTensor } from "../core/tensor.ts";
import { matchName } from "../models/load/weights.ts";
import type { Tuned } from "../lora/mod.ts";
import type { AdapterFiles, AdapterTensor } from "./adapter_files.ts";
import { transposed } from "./adapter_pairs.ts";
import { toF32 } from "./host_tensors.ts";

type AnyModel = Model<any, any, any>;

/** The other name of each weight that is adapted in every use, by the path of its adapter. */
export function tiedNames(model: AnyModel, { plan }: Pick<Tuned<any, any, any>, "plan">): Map<string, string> {
  const names = Object.entries(model.tied ?? {}).flatMap(([alias, module]) =>
    [[alias, module], [module, alias]] as const
  );
  const all = new Set(plan.adapted.filter((m) => m.only === null).map((m) => m.path));
  return new Map(names.filter(([path]) => all.has(path)));
}

/** The same change under the other name. */
export function otherPair(
  { A, B }: { readonly A: HostTensor; readonly B: HostTensor },
): { A: HostTensor; B: HostTensor } {
  return { A: transposed(toF32(B)), B: transposed(toF32(A)) };
}

/**
 * An adapter without the head's copy, where the file says that both uses have one adapter, and the names that are left out.
 *
 * @throws {FileError} where the two are not the same
 */
export function withoutTiedCopies(
  files: AdapterFiles,
  model: AnyModel,
): { files: AdapterFiles; left: readonly string[] } {
  if (!files.config.ensure_weight_tying) return { files, left: [] };
  let { tensors } = files;
  const left: string[] = [];
  for (const [alias, module] of Object.entries(model.tied ?? {})) {
    const [head, embedding] = [alias, module].map((path) => pairOf(tensors, model.hubName?.(path) ?? path));
    if (head === null || embedding === null) continue;
    const expected = otherPair({ A: embedding.A.tensor, B: embedding.B.tensor });
    for (const side of ["A", "B"] as const) {
      if (same(toF32(head[side].tensor).data, expected[side].data)) continue;
      throw new FileError(
        `${files.path} says ensure_weight_tying, but ${head[side].key} is not ${
          embedding[side === "A" ? "B" : "A"].key
        } transposed: save the adapter again.`,
      );
    }
    tensors = tensors.filter((tensor) => tensor !== head.A && tensor !== head.B);
    left.push(alias);
  }
  return { files: { ...files, tensors }, left };
}

function same(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  return a.length === b.length && Array.from(a).every((x, i) => x === b[i]);
}

function pairOf(tensors: readonly AdapterTensor[], hub: string): { A: AdapterTensor; B: AdapterTensor } | null {
  const find = (...parts: string[]) =>
    tensors.find(({ module, part }) => parts.includes(part) && matchName(module, new Set([hub])) === hub);
  const [A, B] = [find("A", "embeddingA"), find("B", "embeddingB")];
  return A === undefined || B === undefined ? null : { A, B };
}
