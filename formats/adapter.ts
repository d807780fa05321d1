/** Between an adapted model on a device and an adapter's folder as PEFT keeps it. */
import { isFloat } from "../core/dtype.ts";
import { FileError, OptionError } from "../core/errors.ts";
import type { Leaf, Model } from "../core/model.ts";
import { asNumbers } from "../core/ops/quantize.ts";
import { type HostTensor, Tensor } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { read } from "../kernels/runtime/read.ts";
import { removeTree, temporaryName, writeFlushed } from "../models/load/files/atomic_file.ts";
import { asKept, pissaToLora, type Trainable, tune, type Tuned, wholeModules } from "../lora/mod.ts";
import { matchesWhole } from "./peft/config.ts";
import {
  type AdapterContents,
  type AdapterFiles,
  type AdapterTensor,
  tensorsByKey,
  writeAdapter,
} from "./peft/files.ts";
import { describeTuned, hubNameOf, moduleNames } from "./peft/describe.ts";
import {
  adapterOptions,
  entriesOf,
  fitAdapter,
  type FittedAdapter,
  type HostEntry,
  wrappedCopies,
} from "./adapter_fit.ts";
import { baseWeight, partOf } from "./peft/keys.ts";
import { refuseChangedBase } from "./peft/methods.ts";
import { tiedNames, underOtherName, withoutTiedCopies } from "./adapter_ties.ts";
import { type BaseRecord, compareBases, fromMetadata, isFromFiles, recordBase, toMetadata } from "./base_record.ts";
import { saveAdapterHub } from "./adapterhub.ts";
import { computed } from "./computed.ts";
import { placerBeside, toDType, toF32 } from "./host_tensors.ts";
import { checkMembers, checkOptions, checkPath, type OptionNames } from "../core/options.ts";

/** What an adapter's files record besides the adapter itself. */
export interface SaveOptions {
  /** The adapter's values: those that `train` returned, or `tuned.trainable` of an adapter that was read. */
  readonly trainable: Trainable;
  /** Where the base model came from: a folder, a file or a hub name. */
  readonly baseModel?: string;
  /** The dropout that it was trained with, as a note to whoever trains on. */
  readonly dropout?: number;
  /** What is recorded of the base; made of the model's files where it is left out and the model has some. */
  readonly base?: BaseRecord;
  /** Another name than `default`: the adapter is saved in a folder of that name below, as PEFT does. */
  readonly name?: string;
}

/** The names of {@link SaveOptions}. */
export const saveNames: OptionNames<SaveOptions> = {
  ...{ trainable: true, baseModel: true, dropout: true, base: true, name: true },
};

/** An adapter that was read, on its model: what `lora` returns, and what its files say beside A and B. */
export interface LoadedAdapter<P, I, O> extends Tuned<P, I, O> {
  /** @ignore */
  readonly origin: AdapterOrigin;
  /** What a person should know: how keys are spelled, and what was not evaluated. */
  readonly notes: readonly string[];
}

/** What is kept of an adapter's files, so that it can be saved again unchanged. */
export interface AdapterOrigin {
  /** `adapter_config.json` as it was. */
  readonly config: Readonly<Record<string, unknown>>;
  /** The file's own metadata. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The file's spelling of each module, by the model's path. */
  readonly spelled: ReadonlyMap<string, string>;
  /** The modules, as the file spells them, beside whose adapter it has the base's weight. */
  readonly copied: ReadonlySet<string>;
  /** Biases that the file has once more inside PEFT's wrappers. */
  readonly wrapped: ReadonlyMap<AdapterTensor, AdapterTensor>;
}

/** An adapted model that may have come from files. */
export type Savable<P> = Tuned<P, unknown, unknown> & { readonly origin?: AdapterOrigin };

/**
 * Writes `adapter_config.json` and `adapter_model.safetensors` as PEFT does: PEFT's `from_pretrained` reads the folder. One
 * adapter always gives the same bytes, and a run that is cut short leaves the folder's old contents or the new ones. An
 * adapter that was loaded keeps the configuration that it had, keys of others included. Parts of a fused projection are
 * written as the whole one, with zeros between; a PiSSA adapter as the plain one of twice the rank that it is on the base.
 *
 * @throws {FileError} when the folder can't be written, or a value is not finite (nothing is written then)
 */
export async function saveAdapter<P>(folder: string, tuned: Savable<P>, options: SaveOptions): Promise<void> {
  checkOptions("saveAdapter", options, saveNames);
  checkPath("saveAdapter", folder);
  checkMembers("saveAdapter", "an adapted model", tuned, ["model", "frozen", "plan"]);
  if (tuned.plan.adapted.some(({ method }) => method.peftType === undefined)) {
    return await saveAdapterHub(placeOf(folder, options.name), tuned, options.trainable);
  }
  writeAdapter(placeOf(folder, options.name), await adapterContents(tuned, options));
}

/** What {@link saveAdapter} writes. */
export async function adapterContents<P>(
  given: Savable<P>,
  { trainable: values, baseModel, dropout, base: record }: SaveOptions,
): Promise<AdapterContents> {
  const { origin, model } = given;
  const tuned = wholeAndPlain(given, values);
  const tied = tiedNames(model, tuned);
  const spell = (path: string) => origin?.spelled.get(path) ?? hubNameOf(model)(path);
  const copied = tuned.matched.flatMap(({ path }) => {
    const names = [path, ...(tied.has(path) ? [tied.get(path)!] : [])];
    return origin === undefined
      ? names.filter(() => savesBase(path))
      : names.filter((n) => origin.copied.has(spell(n)));
  });
  const base = flatten<Leaf>(given.frozen);
  const weightOf = (path: string) => asNumbers(base.leaves[base.paths.indexOf(`${model.tied?.[path] ?? path}.weight`)]);
  const [{ method }] = tuned.plan.adapted;
  const shared = method.shared?.of(tuned.plan.adapted) ?? {};
  const onDevice = computed({ trainable: tuned.trainable, copied: copied.map(weightOf), shared });
  const host = await read(onDevice) as {
    trainable: Record<string, HostEntry>;
    copied: HostTensor[];
    shared: Record<string, HostTensor>;
  };
  const kinds = new Map(tuned.matched.map((m) => [m.path, m.kind]));
  const tensors = tensorsByKey([
    ...Object.entries(host.trainable).flatMap(([path, entry]) =>
      Object.entries(entry).map(([leaf, tensor]) => ({
        module: spell(path),
        part: partOf(method, leaf, { embedding: kinds.get(path) === "embedding", adapted: kinds.has(path) }),
        tensor,
      }))
    ),
    ...copied.map((path, i) => ({ module: spell(path), part: baseWeight, tensor: host.copied[i] })),
    ...[...tied].flatMap(([path, other]) => {
      const traits = { embedding: kinds.has(path) && kinds.get(path) !== "embedding", adapted: kinds.has(path) };
      return Object.entries(underOtherName(host.trainable[path])).map(([leaf, tensor]) => ({
        module: spell(other),
        part: partOf(method, leaf, traits),
        tensor,
      }));
    }),
  ], host.shared);
  for (const [{ key, module, tensor }, own] of origin?.wrapped ?? []) {
    tensors.set(key, module.includes(".modules_to_save") ? tensors.get(own.key)! : tensor);
  }
  const config = origin === undefined
    ? describeTuned(model, tuned.plan, { dropout, baseModel: baseModel ?? null })
    : { ...origin.config, ...(baseModel !== undefined && { base_model_name_or_path: baseModel }) };
  const described = record ?? (isFromFiles(model) ? recordBase(model, baseModel) : null);
  const metadata = origin?.metadata ?? { format: "pt", ...(described && toMetadata(described)) };
  return { config, tensors, metadata };
}

/** The same function as PEFT can say it: whole modules, on the model's own weights. */
function wholeAndPlain<P>(tuned: Savable<P>, values: Trainable): Tuned<P, unknown, unknown> {
  const plain = isResidual(tuned) ? pissaToLora(tuned, values) : { ...tuned, trainable: values };
  const inParts = plain.matched.some(({ part }) => part !== undefined);
  return inParts ? wholeModules(plain, plain.trainable) : asKept(plain, plain.trainable);
}

/** Whether adapted weights are what PiSSA left of the model's. */
function isResidual<P>({ model, frozen, origin, plan }: Savable<P>): boolean {
  if (origin !== undefined) return false;
  const [own, now] = [flatten<Leaf>(model.params), flatten<Leaf>(frozen)];
  return plan.adapted.some(({ leaf }) => own.leaves[leaf] !== now.leaves[leaf]);
}

/** Whether PEFT saves the base's weight beside the adapter of this module. */
function savesBase(module: string): boolean {
  return /(^|\.)(embed_tokens|lm_head)$/.test(module);
}

/** An adapter's own folder. */
function placeOf(folder: string, name = "default"): string {
  if (!/^[^/\\]+$/.test(name) || /^\.\.?$/.test(name)) {
    throw new OptionError(`an adapter can't be named ${JSON.stringify(name)}: it is the name of a folder`);
  }
  return name === "default" ? folder : `${folder}/${name}`;
}

/**
 * Makes a folder and writes into it, so that a run does not end with an adapter that can't be saved.
 *
 * @throws {FileError} when that can't be done
 */
export function checkWritable(folder: string): void {
  checkPath("checkWritable", folder);
  const probe = `${folder}/${temporaryName()}`;
  writeFlushed(probe, [], folder);
  removeTree(probe);
}

/** How an adapter is loaded. */
export interface LoadAdapterOptions {
  /** Allow a base other than the one that the adapter was trained on. */
  readonly anyBase?: boolean;
  /** The model's weights are already what the adapter's start (PiSSA's, OLoRA's, …) left of them, so that it belongs to them. */
  readonly residual?: boolean;
}

/** Puts an adapter that was read on a model, on the device that holds it; placeholders for a model of placeholders. */
export function uploadAdapter<P, I, O>(
  given: AdapterFiles,
  model: Model<P, I, O>,
  { anyBase = false, residual = false }: LoadAdapterOptions = {},
): LoadedAdapter<P, I, O> {
  const { files, left } = withoutTiedCopies(given, model);
  if (!residual) refuseChangedBase(files.path, files.config);
  const recorded = fromMetadata(files.metadata);
  const about = recorded === null || anyBase || !isFromFiles(model)
    ? []
    : compareBases(files.path, recorded, recordBase(model, model.path));
  const fitted = fitAdapter(files, moduleNames(model).filter(({ path }) => !left.includes(path)));
  refuseTokensOfHead(files, fitted);
  const made = adapt(files, model, fitted), tuned = asKept(made, made.trainable);
  const first = flatten<Leaf>(made.trainable).leaves;
  try {
    const base = flatten<Leaf>(tuned.frozen);
    const weightAt = (path: string) => base.paths.indexOf(`${model.tied?.[path] ?? path}.weight`);
    const copied = [...fitted.modules.keys()].filter((path) => fitted.modules.get(path)!.tensors.has("base"));
    const shapes = new Map(Object.entries(tuned.trainable).map(([path, entry]) => [path, shapesOf(entry)]));
    for (const path of copied) {
      shapes.set(path, { ...shapes.get(path), base: base.leaves[weightAt(path)].aval.shape });
    }
    const entries = entriesOf(files, fitted, shapes);
    const place = placerBeside(tuned.frozen);
    const trainable = mapLeaves(entries, (leaf, tensor) => leaf === "base" ? null : place(toF32(tensor)));
    // As PEFT does, the base's weight is the one that was saved beside the adapter.
    for (const path of copied) {
      const { dtype } = base.leaves[weightAt(path)].aval;
      base.leaves[weightAt(path)] = place(toDType(entries[path].base!, isFloat(dtype) ? dtype : "f32"));
    }
    return {
      ...tuned,
      frozen: copied.length === 0 ? tuned.frozen : base.unflatten(base.leaves) as P,
      trainable,
      origin: {
        config: files.raw,
        metadata: files.metadata,
        spelled: new Map([...fitted.modules].map(([path, { module }]) => [path, module])),
        copied: new Set(given.tensors.filter(({ part }) => part.leaf === baseWeight.leaf).map(({ module }) => module)),
        wrapped: wrappedCopies(given.tensors),
      },
      notes: [...about, ...fitted.notes],
    };
  } finally {
    for (const leaf of first) if (leaf instanceof Tensor) leaf.dispose();
  }
}

/** Refuses trained rows of a head alone: a tied head's are trained here with the embedding's. */
function refuseTokensOfHead({ path }: AdapterFiles, { modules }: FittedAdapter): void {
  const head = [...modules.values()].find(({ hub, tensors }) => tensors.has("tokens") && matchesWhole("lm_head", hub));
  if (head === undefined) return;
  throw new FileError(
    `${path} has trainable_token_indices of ${head.module}, and rows of embeddings alone are trained here (with those of a ` +
      `head that is tied to them): merge it with PEFT (merge_and_unload), or name the embedding and train it again.`,
  );
}

/** The model adapted as the files say; an option of theirs that the model can't take is theirs to fix. */
function adapt<P, I, O>(files: AdapterFiles, model: Model<P, I, O>, fitted: FittedAdapter): Tuned<P, I, O> {
  try {
    const shared = files.shared &&
      Object.fromEntries(
        Object.entries(files.shared).map(([key, tensor]) => [key, isFloat(tensor.dtype) ? toF32(tensor) : tensor]),
      );
    return tune<any, I, O, object>(model, files.method, adapterOptions(files, fitted), {
      anyRank: true,
      shared,
    }) as Tuned<
      P,
      I,
      O
    >;
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    throw new FileError(`${files.path} can't be put on this model: ${error.message}.`);
  }
}

function mapLeaves(
  entries: Record<string, HostEntry>,
  f: (leaf: string, tensor: HostTensor) => Leaf | null,
): Trainable {
  return Object.fromEntries(
    Object.entries(entries).map(([path, entry]) => [
      path,
      Object.fromEntries(
        Object.entries(entry).map(([leaf, tensor]) => [leaf, f(leaf, tensor)]).filter(([, leaf]) => leaf !== null),
      ),
    ]),
  );
}

function shapesOf(entry: object): Record<string, readonly number[]> {
  return Object.fromEntries(Object.entries(entry).map(([leaf, { aval }]: [string, Leaf]) => [leaf, aval.shape]));
}
