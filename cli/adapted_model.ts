/** A model with an adapter on it, as `merge` and `verify` need it. */
import type { Model } from "../core/model.ts";
import type { OpenedDevice } from "../kernels/device/open.ts";
import type { AnyModel, WeightDType } from "../models/mod.ts";
import { type LoadedAdapter, uploadAdapter } from "../formats/adapter.ts";
import { describeMatches } from "../report/describe.ts";
import type { Given, OptionTable } from "../train/options/option_table.ts";
import { anyBaseOption, basePath, outlineBase, readAnyAdapter } from "./adapter_input.ts";
import { downloadAdapter, downloadProgress } from "./download.ts";
import type { Terminal } from "./command.ts";
import { logModel, modelOptions, openDeviceFor } from "./open_model.ts";

/** The options of commands that put an adapter on its base. */
export const adaptedOptions = {
  model: { ...modelOptions.model, help: "The base; by default the one that the adapter names" },
  device: modelOptions.device,
  dtype: modelOptions.dtype,
  threads: modelOptions.threads,
  anyBase: anyBaseOption,
} as const satisfies OptionTable;

/** Everything that stays open until the command is done. */
export interface AdaptedModel extends Disposable {
  readonly device: OpenedDevice;
  readonly basePath: string;
  readonly model: AnyModel;
  readonly tuned: LoadedAdapter<any, any, any>;
}

/**
 * Opens a device, the base and the adapter, and says what they are.
 *
 * @param hold how the base is held, where that is not what is asked for
 */
export async function openAdapted(
  adapter: string,
  options: Given<typeof adaptedOptions>,
  terminal: Terminal,
  hold = options.dtype as WeightDType | undefined,
): Promise<AdaptedModel> {
  const place = await downloadAdapter(adapter, terminal);
  const files = await readAnyAdapter(place, options.model);
  const base = basePath(place, options.model);
  using opened = new DisposableStack();
  const device = opened.use(await openDeviceFor(options, terminal));
  using outlined = await outlineBase(base, place, { device, dtype: hold, ...downloadProgress(base, terminal) });
  logModel(base, outlined.outline, terminal);
  const put = (model: AnyModel) =>
    uploadAdapter<any, any, any>(files, model as Model<any, any, any>, { anyBase: options.anyBase });
  put(outlined.outline); // what does not fit is reported before the weights are read
  const model = opened.use(await outlined.load());
  const tuned = put(model);
  for (const line of describeMatches(tuned.matched)) terminal.say(`adapter   ${line}`);
  for (const note of tuned.notes) terminal.warn(`note: ${adapter}: ${note}`);
  const all = opened.move();
  return { device, basePath: base, model, tuned, [Symbol.dispose]: () => all.dispose() };
}
