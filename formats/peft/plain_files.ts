/** Adapters as plain LoRA for the base as it was: those whose start changed its weights, as PiSSA's, and other methods'. */
import { FileError } from "../../core/errors.ts";
import type { Model } from "../../core/model.ts";
import { pissa, type PissaOptions, pissaToLora, type RankError, toLora, type Tuned } from "../../lora/mod.ts";
import { adapterContents, uploadAdapter } from "../adapter.ts";
import { moduleNames } from "./describe.ts";
import { type AdapterContents, type AdapterFiles, readAdapter } from "./files.ts";
import { adapterOptions, fitAdapter } from "../adapter_fit.ts";
import { changedBase, refuseChangedBase } from "./methods.ts";
import { checkMembers, checkOptions } from "../../core/options.ts";

/**
 * An adapter of PiSSA, OLoRA, CorDA or LoRA-GA as a plain one of twice the rank: s·(B·A - B₀·A₀) on the base, where A₀ and B₀
 * are what it started from. They are read from `initial`, the folder of the adapter before training, or else, of PiSSA's,
 * computed again from the base's weights, which is exact only where they were not approximated (`pissa_niter_N`).
 *
 * @throws {FileError} when the adapter is plain, its start can't be had, or it does not fit the model
 */
export async function plainFromPissa<P>(
  adapter: AdapterFiles,
  model: Model<P, unknown, unknown>,
  initial?: string,
): Promise<AdapterContents> {
  checkMembers("plainFromPissa", "an adapter's files, as readAdapter gives them", adapter, ["config", "tensors"]);
  const { init_lora_weights: init, base_model_name_or_path: baseModel } = adapter.config;
  const method = changedBase(adapter.config);
  if (method === null && initial === undefined) {
    throw new FileError(
      `${adapter.path} was not initialised by PiSSA` +
        `${init === undefined ? "" : ` (init_lora_weights is ${JSON.stringify(init)})`}: it is plain.`,
    );
  }
  if (method === "LoftQ") refuseChangedBase(adapter.path, adapter.config); // its start is on quantised weights
  if (initial === undefined && init !== "pissa") {
    const why = method === "PiSSA" ? "which draws its singular vectors" : "whose initial values are not computed here";
    throw new FileError(
      `${adapter.path} was initialised by ${init}, ${why}: give the folder of the adapter before training (--initial FOLDER).`,
    );
  }
  const trained = uploadAdapter(adapter, model, { residual: true });
  // Only where it started from is asked of this: what the first values were, and which modules they belong to.
  let started: Tuned<P, unknown, unknown>;
  if (initial !== undefined) {
    started = { ...trained, trainable: uploadAdapter(readAdapter(initial), model, { residual: true }).trainable };
  } else {
    const options = adapterOptions(adapter, fitAdapter(adapter, moduleNames(model)));
    started = await pissa<any, any, any>(model, options as unknown as PissaOptions<any>);
  }
  const plain = pissaToLora(started, trained.trainable);
  return await adapterContents({ ...plain, frozen: model.params }, {
    trainable: plain.trainable,
    baseModel: baseModel ?? undefined,
    dropout: adapter.config.lora_dropout,
  });
}

/**
 * An adapter of any method that can be merged as LoRA of a rank, and how far that is from it.
 *
 * @throws {FileError} when it does not fit the model
 * @throws {OptionError} for a rank that a module can't take, or a method that can't be merged
 */
export async function loraFromAny<P>(
  adapter: AdapterFiles,
  model: Model<P, unknown, unknown>,
  options: { readonly rank: number; readonly baseModel?: string },
): Promise<{ readonly contents: AdapterContents; readonly errors: readonly RankError[]; readonly error: number }> {
  checkOptions("loraFromAny", options, { rank: true, baseModel: true });
  checkMembers("loraFromAny", "an adapter's files, as readAdapter gives them", adapter, ["config", "tensors"]);
  const { rank, baseModel } = options;
  const given = uploadAdapter(adapter, model);
  // Beside an embedding the file has the base's weight, which is then the model's own.
  const own = { ...given, model: { ...model, params: given.frozen } };
  const { tuned, errors, error } = await toLora(own, given.trainable, { rank });
  const contents = await adapterContents(tuned, {
    trainable: tuned.trainable,
    baseModel: baseModel ?? adapter.config.base_model_name_or_path ?? undefined,
  });
  return { contents, errors, error };
}
