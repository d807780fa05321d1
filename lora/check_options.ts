import { OptionError } from "../core/errors.ts";
import { checkObject, noOption } from "../core/options.ts";
import { besidesOf, familyOf, methods } from "./methods/mod.ts";
import type { Method, OptionKey } from "./methods/method.ts";
import { startNamed } from "./methods/starts.ts";

/** Options of every method, and PEFT's keys for them. */
const commonOptions: Readonly<Record<string, OptionKey>> = {
  targets: { peft: "target_modules", file: { is: "a list of names or one pattern", default: null } },
  exclude: { peft: "exclude_modules", file: { is: "a list of names or one pattern", default: null } },
  layers: { peft: "layers_to_transform", file: { is: "a layer or a list of layers", default: null } },
  layersPattern: { peft: "layers_pattern", file: { is: "a name or a list of names", default: null } },
  tie: { peft: "ensure_weight_tying", file: { is: "true or false", default: false }, recent: true },
};

/** All options that a method, and those that share its files, take. */
export function optionsOf(method: Method): Readonly<Record<string, OptionKey>> {
  const { targets, ...others } = commonOptions;
  return Object.assign(
    {},
    ...[...familyOf(method), ...besidesOf(method)].map(({ options }) => options),
    method.whole ? {} : method.branch ? others : { targets, ...others },
  );
}

/** PEFT's options that are not here, and why in one sentence. */
export const refusedOptions: Readonly<Record<string, string>> = {
  fan_in_fan_out: "it is read from the model's own products",
  loftq_config: "LoftQ's initial values are not computed here: make them with PEFT and load the folder",
  eva_config: "EVA's options stand among the others: rho, tau, whiten, adjustScalingFactors",
  corda_config: "CorDA's option is mode",
  lora_ga_config: "LoRA-GA's initial values are not computed here: make them with PEFT and load the folder",
  layer_replication: "a model's layers are not repeated: write the model that has them twice",
  target_parameters: "only modules are adapted: name the module, or give the parameter a module of its own",
  megatron_config: "a model is on one device here: leave it out",
  megatron_core: "a model is on one device here: leave it out",
  use_qalora: "QA-LoRA, which pools the inputs of groups, is not supported",
  qalora_group_size: "QA-LoRA, which pools the inputs of groups, is not supported",
  use_bdlora: "block-diagonal LoRA is not supported",
  arrow_config: "Arrow's routing between adapters is not supported: choose adapters by row with applyPerExample",
  monteclora_config: "MonteCLoRA's sampling is not supported",
  velora_config: "VeLoRA's compressed gradients are not built: checkpoint saves memory",
  rank_dropout: "what training drops is the inputs of a branch: use dropout where the method has it",
  module_dropout: "what training drops is the inputs of a branch: use dropout where the method has it",
  coft: "the constrained variant of OFT, which takes back what turns too far at each step, is not supported",
  use_effective_conv2d: "convolutions are not adapted",
  kasa_config: "KaSA's singular values are not built",
};

/** `useDora` as `use_dora`. */
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/**
 * What types can't say to a program that is not compiled: an unknown option, or one of PEFT's that is not
 * built.
 *
 * @throws {OptionError} that names it, and the option that is meant
 */
export function checkMethodOptions(options: object, method: Method): void {
  const known = optionsOf(method);
  checkObject(method.name, options, known);
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(known, key)) continue;
    const own = Object.keys(known).find((name) => known[name].peft === snake(key));
    if (own !== undefined) throw new OptionError(`there is no option ${key}: it is called ${own} here`);
    const reason = refusedOptions[snake(key)];
    if (reason !== undefined) throw new OptionError(`the option ${key} of PEFT is not supported: ${reason}`);
    throw noOption(method.name, key, Object.keys(known));
  }
  const { init, bias, tie, targets } = options as Record<string, unknown>;
  if ((targets === undefined || targets === null) && Object.hasOwn(known, "targets")) {
    throw new OptionError(
      `${method.name} needs targets: a list with the names of the modules to adapt, or "all-linear" for every linear layer`,
    );
  }
  if (init !== undefined && known.init?.file === undefined) checkInit(init);
  oneOf("bias", bias, ["none", "all", "lora"]);
  oneOf("tie", tie, ["use", "all"]);
}

function checkInit(init: unknown): void {
  const drawn: readonly unknown[] = [true, false, "gaussian", "orthogonal"];
  const start = drawn.includes(init) ? undefined : startNamed(init);
  if (start === undefined) return oneOf("init", init, drawn);
  throw new OptionError(
    start.name === methods.pissa.name
      ? `init "${init}" needs the weights' values, which are waited for: call await pissa(model, …)`
      : start.waited
      ? `init "${init}" needs the weights' values or data, which are waited for: call await lora(model, { init: "${init}", … })`
      : `init "${init}": ${start.label} is not computed here: create the initial values with PEFT and load the folder`,
  );
}

function oneOf(what: string, value: unknown, known: readonly unknown[]): void {
  if (value === undefined || known.includes(value)) return;
  throw new OptionError(
    `${what} is ${JSON.stringify(value)}; supported: ${known.map((x) => JSON.stringify(x)).join(", ")}`,
  );
}
