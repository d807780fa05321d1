import { OptionError } from "../core/errors.ts";
import { nearest } from "../core/host/nearest.ts";

/** Every option of `lora`, and what PEFT calls it. */
export const optionNames: Readonly<Record<string, string>> = {
  r: "r",
  alpha: "lora_alpha",
  targets: "target_modules",
  exclude: "exclude_modules",
  layers: "layers_to_transform",
  layersPattern: "layers_pattern",
  dropout: "lora_dropout",
  rslora: "use_rslora",
  dora: "use_dora",
  rankPattern: "rank_pattern",
  alphaPattern: "alpha_pattern",
  bias: "bias",
  loraBias: "lora_bias",
  modulesToSave: "modules_to_save",
  trainableTokens: "trainable_token_indices",
  init: "init_lora_weights",
  seed: "",
  tie: "ensure_weight_tying",
};

/** PEFT's options that are not here, and why in one sentence. */
export const refusedOptions: Readonly<Record<string, string>> = {
  fan_in_fan_out: "it is read from the model's own products",
  loftq_config: "LoftQ's initial values are not computed here: make them with PEFT and load the folder",
  eva_config: "EVA's initial values are not computed here: make them with PEFT and load the folder",
  corda_config: "CorDA's initial values are not computed here: make them with PEFT and load the folder",
  lora_ga_config: "LoRA-GA's initial values are not computed here: make them with PEFT and load the folder",
  alora_invocation_tokens: "activated LoRA, which adapts only what follows its tokens, is not supported",
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
  kasa_config: "KaSA's singular values are not built",
};

/** Ways to start that PEFT has and that would have to be computed. */
export const refusedInits: Readonly<Record<string, string>> = {
  eva: "EVA",
  olora: "OLoRA",
  loftq: "LoftQ",
  corda: "CorDA",
  orthogonal: "orthogonal starts",
  lora_ga: "LoRA-GA",
  mica: "MiCA",
};

/** `useDora` as `use_dora`. */
const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/**
 * What types can't say to a program that is not compiled: an unknown option, or one of PEFT's that is not
 * built.
 *
 * @throws {OptionError} that names it, and the option that is meant
 */
export function checkOptions(options: object): void {
  for (const key of Object.keys(options)) {
    if (Object.hasOwn(optionNames, key)) continue;
    const own = Object.keys(optionNames).find((name) => optionNames[name] === snake(key));
    if (own !== undefined) throw new OptionError(`there is no option ${key}: it is called ${own} here`);
    const reason = refusedOptions[snake(key)];
    if (reason !== undefined) throw new OptionError(`the option ${key} of PEFT is not supported: ${reason}`);
    const near = nearest(key, Object.keys(optionNames));
    throw new OptionError(`there is no option ${key}${near === null ? "" : `: did you mean ${near}?`}`);
  }
  const { init, bias, tie } = options as Record<string, unknown>;
  if (init !== undefined) checkInit(init);
  oneOf("bias", bias, ["none", "all", "lora"]);
  oneOf("tie", tie, ["use", "all"]);
}

function checkInit(init: unknown): void {
  if (typeof init === "string" && init.startsWith("pissa")) {
    throw new OptionError(`init "${init}" needs the weights' values, which are waited for: call await pissa(model, …)`);
  }
  if (typeof init === "string" && Object.hasOwn(refusedInits, init)) {
    throw new OptionError(
      `init "${init}": ${
        refusedInits[init]
      } is not computed here: create the initial values with PEFT and load the folder`,
    );
  }
  if (typeof init !== "boolean") oneOf("init", init, [true, false, "gaussian"]);
}

function oneOf(what: string, value: unknown, known: readonly unknown[]): void {
  if (value === undefined || known.includes(value)) return;
  throw new OptionError(
    `${what} is ${JSON.stringify(value)}; supported: ${known.map((x) => JSON.stringify(x)).join(", ")}`,
  );
}
