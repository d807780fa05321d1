/** What examples are by weights that no step changes, computed once: a reference model's log-probabilities, for one. */
import { createHash } from "node:crypto";
import { sizeOf } from "../core/aval.ts";
import { OptionError } from "../core/errors.ts";
import type { HostArray } from "../core/dtype.ts";
import { homeOf } from "../core/runtime.ts";
import type { Operand, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import type { BatchColumns, Example } from "../data/examples.ts";
import type { Examples } from "../data/data_set.ts";
import { isFromFiles, recordBase } from "../formats/base_record.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { uploadPlaced } from "./compiled_step.ts";
import type { Objective } from "./objectives/objective.ts";
import type { ReferenceStore } from "./reference_store.ts";
import { baseOf, type Trainee } from "./trainee.ts";

/** How rows are fed to what is computed once. */
export interface ReferenceOptions {
  readonly objective: Objective;
  /** Rows at once. */
  readonly batch: number;
  readonly padId: number;
  /** The length that a batch is padded to whose longest row has so many tokens. */
  readonly seqOf: (longest: number) => number;
  /** Where the numbers are kept between runs. */
  readonly store?: ReferenceStore;
}

/** Batches of like length are made of this many at a time. */
const window = 64;

/** The function of a batch that is computed once, of the weights that no step changes. */
export function referenceFunction(trainee: Trainee<any, any>, objective: Objective) {
  const { apply } = baseOf(trainee);
  return (params: unknown, columns: BatchColumns<Operand>) =>
    objective.reference!.of((inputs) => apply(params, inputs), columns);
}

/** Rows as others of the same number and order: when they are asked for where those are streamed, else all at once. */
function rowsAs({ length, streamed }: Examples, at: (index: number) => Example | undefined): Examples {
  if (streamed) return { length, streamed: true, at };
  return Array.from({ length }, (_, i) => at(i)) as unknown as Examples;
}

/** Rows with what each takes of the one before it, where their objective takes anything. */
export function relatedRows(data: Examples, { related }: Pick<Objective, "related">): Examples {
  if (related === undefined) return data;
  const at = (index: number): Example | undefined => {
    const example = data.at(index);
    if (example === undefined) return undefined;
    for (let back = 1; back < data.length; back++) {
      const previous = data.at((index - back + data.length) % data.length);
      if (previous !== undefined) return related(example, previous);
    }
    return related(example, example);
  };
  return rowsAs(data, at);
}

/**
 * The same rows with what their objective wants to know of each before the run; where it wants nothing, these rows.
 *
 * @throws {OptionError} where the numbers are to be kept of a model that did not come from files
 */
export async function withReference(
  data: Examples,
  trainee: Trainee<any, any>,
  options: ReferenceOptions,
): Promise<Examples> {
  const { reference } = options.objective;
  if (reference === undefined) return data;
  const { store } = options;
  const key = store ? keyOf(data, trainee, options.objective) : "";
  const kept = store?.read(key);
  const columns = kept ?? await computed(data, trainee, options);
  if (!kept) store?.write(key, columns);
  const sizes = Object.entries(reference.columns).map(([name, shape]) => [name, sizeOf(shape)] as const);
  const at = (index: number): Example | undefined => {
    const example = data.at(index);
    const own = sizes.map(([name, size]) => [name, columns[name].subarray(index * size, (index + 1) * size)]);
    return example && { ...example, reference: Object.fromEntries(own) };
  };
  return rowsAs(data, at);
}

/** Every number, one example after the other, by name. */
async function computed(
  data: Examples,
  trainee: Trainee<any, any>,
  { objective, batch, padId, seqOf }: ReferenceOptions,
): Promise<Record<string, Float32Array>> {
  const { params } = baseOf(trainee);
  const home = homeOf(params);
  const run = jit(referenceFunction(trainee, objective), { warn: () => {} });
  const { columns } = objective.reference!;
  const found = Object.fromEntries(
    Object.entries(columns).map(([name, shape]) => [name, new Float32Array(data.length * sizeOf(shape))] as const),
  );
  for (let start = 0; start < data.length; start += window * batch) {
    const rows = Array.from(
      { length: Math.min(window * batch, data.length - start) },
      (_, i) => ({ index: start + i, example: data.at(start + i) }),
    ).filter((row): row is { index: number; example: Example } => row.example !== undefined)
      .sort((a, b) => objective.lengthOf(a.example) - objective.lengthOf(b.example));
    for (let at = 0; at < rows.length; at += batch) {
      const some = rows.slice(at, at + batch);
      const longest = Math.max(...some.map(({ example }) => objective.lengthOf(example)));
      const size = { padId, seq: seqOf(longest), rows: Math.min(batch, data.length) };
      const uploaded = uploadPlaced(home, objective.collate(some.map(({ example }) => example), size), objective);
      const made: Record<string, { data: HostArray }> = await read(run(params, uploaded), { release: true }) as never;
      for (const leaf of flatten<Tensor>(uploaded).leaves) leaf.dispose();
      for (const [name, all] of Object.entries(found)) {
        const size = all.length / data.length;
        some.forEach(({ index }, i) => all.set(made[name].data.subarray(i * size, (i + 1) * size), index * size));
      }
    }
  }
  return found;
}

/** What decides the numbers: the weights, the rows as tokens, and what is asked of them. */
function keyOf(data: Examples, { model }: Trainee<any, any>, { name, reference }: Objective): string {
  if (!model || !isFromFiles(model)) {
    throw new OptionError(
      "reference numbers are kept for a base that was loaded from files, by their hash: load it from files, or keep none",
    );
  }
  const { sha256, dtype } = recordBase(model);
  const hash = createHash("sha256").update(JSON.stringify([name, reference!.columns, sha256, dtype]));
  for (let i = 0; i < data.length; i++) hash.update(JSON.stringify(data.at(i) ?? null));
  return hash.digest("hex");
}
