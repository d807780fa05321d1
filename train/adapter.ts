/** Between an adapted model on a device and an adapter's folder as PEFT keeps it. */
import type { Leaf, Model } from "../core/model.ts";
import { type HostTensor, Tensor, upload } from "../core/tensor.ts";
import { flatten } from "../core/tree.ts";
import { read } from "../kernels/jit.ts";
import { writeFlushed } from "../models/load/atomic_file.ts";
import { lora, type Match, type Trainable, type Tuned } from "../lora/mod.ts";
import { type AdapterConfigOptions, makeAdapterConfig } from "./adapter_config.ts";
import { adapterOptions, type AdapterPair, pairsFor, readAdapter, savesBase, writeAdapter } from "./adapter_files.ts";

/** What an adapter's files say beside the adapter itself. */
export interface SaveOptions {
  /** Where the base model came from: a folder, a file or a hub name. */
  readonly baseModel?: string;
  /** The dropout that it was trained with, as a note to whoever trains on. */
  readonly dropout?: number;
}

/**
 * Writes `adapter_config.json` and `adapter_model.safetensors` as PEFT does: PEFT's `from_pretrained` reads the folder. One
 * adapter always gives the same bytes, and a run that is cut short leaves the folder's old contents or the new ones.
 *
 * @throws {FileError} when the folder can't be written, or a value is not finite (nothing is written then)
 */
export async function saveAdapter<P>(
  folder: string,
  model: Model<P, any, any>,
  tuned: Pick<Tuned<P, any, any>, "matched" | "frozen">,
  trainable: Trainable,
  { baseModel, dropout }: SaveOptions = {},
): Promise<void> {
  const frozen = flatten<Leaf>(tuned.frozen);
  const base = (path: string) => frozen.leaves[frozen.paths.indexOf(`${model.tied?.[path] ?? path}.weight`)];
  const onDevice = Object.fromEntries(
    tuned.matched.map(({ path }) => [path, { ...trainable[path], ...(savesBase(path) && { base: base(path) }) }]),
  );
  const pairs: Record<string, AdapterPair> = await read(onDevice);
  for (const { path, kind } of tuned.matched) {
    if (kind === "embedding") pairs[path] = { ...pairs[path], embedding: true };
  }
  const config = makeAdapterConfig({
    ...describeMatches(model, tuned.matched),
    dropout,
    baseModel: baseModel ?? null,
  });
  writeAdapter(folder, config, pairs, hubNameOf(model));
}

/**
 * Makes a folder and writes into it, so that a run does not end with an adapter that can't be saved.
 *
 * @throws {FileError} when that can't be done
 */
export function checkWritable(folder: string): void {
  const probe = `${folder}/.probe`;
  writeFlushed(probe, []);
  Deno.removeSync(probe);
}

/** The modules of a model: paths of its weights without `.weight`, and further names of tied ones. */
function modulePaths(model: Model<any, any, any>): Set<string> {
  const { paths } = flatten<Leaf>(model.params);
  return new Set([
    ...paths.filter((p) => p.endsWith(".weight")).map((p) => p.slice(0, -7)),
    ...Object.keys(model.tied ?? {}),
  ]);
}

/** PEFT's options for just these modules. */
function describeMatches(
  model: Model<any, any, any>,
  matched: readonly Match[],
): Omit<AdapterConfigOptions, "baseModel"> {
  const hubName = hubNameOf(model);
  const r = mostFrequent(matched.map((m) => m.r)), alpha = mostFrequent(matched.map((m) => m.alpha));
  const others = <K extends "r" | "alpha">(key: K, usual: number) =>
    Object.fromEntries(matched.filter((m) => m[key] !== usual).map((m) => [hubName(m.path), m[key]]));
  const lastName = (path: string) => path.slice(path.lastIndexOf(".") + 1);
  // PEFT takes a name for every module that ends with it; where that would be too many, whole paths are listed.
  const names = new Set(matched.map((m) => lastName(m.path)));
  const adapted = new Set(matched.map((m) => m.path));
  const exact = [...modulePaths(model)].every((path) => !names.has(lastName(path)) || adapted.has(path));
  return {
    r,
    alpha,
    targets: exact ? [...names].sort() : matched.map((m) => hubName(m.path)),
    rslora: matched.some((m) => m.scaling !== m.alpha / m.r),
    rankPattern: others("r", r),
    alphaPattern: others("alpha", alpha),
    fanInFanOut: matched.some((m) => m.kind === "linear" && m.layout === "in,out"),
  };
}

/** A module's name in Hugging Face's class: the path itself where a model says nothing of it. */
function hubNameOf(model: Model<any, any, any>): (path: string) => string {
  return (path) => model.hubName?.(path) ?? path;
}

function mostFrequent(numbers: readonly number[]): number {
  const count = (n: number) => numbers.filter((m) => m === n).length;
  return numbers.reduce((best, n) => count(n) > count(best) ? n : best);
}

/**
 * Reads an adapter that PEFT or {@link saveAdapter} wrote and puts it on the model: what `lora` returns, with the adapter's
 * values as `trainable`, on the device that holds the model.
 *
 * @throws {FileError} when the folder holds no whole adapter, or one that does not fit the model
 */
export function loadAdapter<P, I, O>(folder: string, model: Model<P, I, O>): Tuned<P, I, O> {
  const files = readAdapter(folder);
  const { targets, ...options } = adapterOptions(files, modulePaths(model));
  const tuned = lora<any, I, O>(model, { ...options, targets: [...targets] }) as Tuned<P, I, O>;
  const first = flatten<Leaf>(tuned.trainable).leaves;
  const shapes = new Map(
    Object.entries(tuned.trainable).map(([path, { A, B }]) => [path, { A: A.shape, B: B.shape }]),
  );
  const pairs = pairsFor(files, shapes);
  const { home } = first[0] as Tensor;
  const put = (tensor: HostTensor) => upload(home, tensor);
  const trainable = Object.fromEntries(
    [...shapes.keys()].map((path) => [path, { A: put(pairs[path].A), B: put(pairs[path].B) }]),
  );
  for (const leaf of first) (leaf as Tensor).dispose();
  return { ...tuned, trainable };
}
