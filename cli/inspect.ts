/** `lowrank inspect`: what a model or an adapter is, without computing anything. */
import { sizeOf } from "../core/aval.ts";
import { FileError } from "../core/errors.ts";
import { formatBytes, formatCount } from "../core/host/format.ts";
import { lora } from "../lora/mod.ts";
import { openBytes, pathKind } from "../models/load/files/byte_source.ts";
import { readGguf } from "../models/load/gguf/gguf.ts";
import { type AdapterFiles, adapterNames } from "../formats/peft/files.ts";
import { adapterScaling } from "../formats/peft/config.ts";
import { moduleNames } from "../formats/peft/describe.ts";
import { fitAdapter } from "../formats/adapter_fit.ts";
import { describeBase, fromMetadata } from "../formats/base_record.ts";
import { describeMatches, describeTrainable } from "../report/describe.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import { adapterFormat, notableOptions, outlineBase, readAnyAdapter } from "./adapter_input.ts";
import { downloadAdapter } from "./download.ts";
import { alike, columns, withoutLayer } from "./columns.ts";
import { type Command, formatUsage, readFlags, type Terminal, UsageError } from "./command.ts";
import { nowhere, outlineAnyModel } from "./outline.ts";

const table = {
  targets: { kind: "list", value: "NAMES", help: "For a model: what these target modules would match" },
  r: { kind: "whole", least: 1, default: 8, help: "The rank to count parameters with" },
  model: { kind: "text", value: "PATH", help: "For an adapter: check whether it fits this model" },
} as const satisfies OptionTable;

export const command: Command = {
  name: "inspect",
  summary: "what a model or an adapter is: tree, shapes, ranks, counts, what a target matches",
  usage: formatUsage({
    call: "inspect PATH [OPTIONS]",
    table,
    example: "lowrank inspect assets/letters-base --targets c_attn,mlp.c_proj",
    more: "PATH is a model's folder, a .gguf file, or an adapter: PEFT's folder, mlx-lm's, or llama.cpp's file.\n" +
      "Only headers are read: a model of any size takes no memory.",
  }),
  run: async (args, terminal) => {
    const { options, rest } = readFlags(args, table, 1);
    if (rest.length === 0) throw new UsageError("no path is given: name a model or an adapter");
    const path = await downloadAdapter(rest[0], terminal);
    if (isAdapter(path, terminal)) await inspectAdapter(path, options.model, terminal);
    else await inspectModel(path, options.targets, options.r ?? table.r.default, terminal);
  },
};

/** Whether an adapter lies at a path. A folder of several says so and is looked at no further. */
function isAdapter(path: string, terminal: Terminal): boolean {
  if (adapterFormat(path) === "gguf") {
    using source = openBytes(path);
    return readGguf(source).metadata.get("general.type") === "adapter";
  }
  if (pathKind(path) !== "folder") return false;
  if (pathKind(`${path}/adapter_config.json`) === "file") return true;
  const names = adapterNames(path);
  if (names.length > 0) terminal.say(`adapters  ${names.map((name) => `${path}/${name}`).join(", ")}`);
  return names.length > 0 && pathKind(`${path}/config.json`) === null;
}

async function inspectModel(
  path: string,
  targets: readonly string[] | undefined,
  r: number,
  terminal: Terminal,
): Promise<void> {
  const { model, weights } = await outlineAnyModel(path);
  const count = weights.reduce((n, { shape }) => n + sizeOf(shape), 0);
  const bytes = weights.reduce((n, w) => n + w.bytes, 0);
  const types = alike(weights, ({ stored }) => stored).map(({ first, count }) => `${count} ${first.stored}`);
  const tree = alike(weights, ({ name, shape, stored }) => `${withoutLayer(name)} ${shape} ${stored}`);
  const lines = [
    `model      ${path}: ${model.config.modelType}, ${formatCount(count)} parameters in ${formatBytes(bytes)}`,
    `weights    ${weights.length}: ${types.join(", ")}`,
    ...Object.entries(model.tied ?? {}).map(([alias, module]) => `tied       ${alias} is ${module}`),
    ...model.notes.map((note) => `note       ${note}`),
    "",
    ...columns(
      tree.map(({ first, count: n }) => [withoutLayer(first.name), first.shape.join(" x "), first.stored, times(n)]),
    ),
  ];
  let matched: unknown;
  if (targets) {
    const tuned = lora<any, any, any>(model, {
      r,
      alpha: r,
      targets: targets.length === 1 ? anyTarget(targets[0]) : targets,
    });
    matched = tuned.matched.map(({ path, shape, kind, trainable }) => ({ path, shape, kind, trainable }));
    lines.push("", `targets    ${targets.join(", ")}`, ...describeMatches(tuned.matched));
    lines.push(describeTrainable(tuned.trainable, model.params));
  }
  terminal.print(lines.join("\n"));
  terminal.result({
    kind: "model",
    ...{
      path,
      architecture: model.config.modelType,
      parameters: count,
      bytes,
      tied: model.tied ?? {},
      notes: model.notes,
    },
    weights: weights.map(({ name, shape, stored, bytes }) => ({ name, shape, stored, bytes })),
    ...(matched ? { matched } : {}),
  });
}

/** `all-linear` is a word of its own; everything else is a name. */
function anyTarget(name: string): string | string[] {
  return name === "all-linear" ? name : [name];
}

const times = (n: number) => n === 1 ? "" : `${n} layers`;

async function inspectAdapter(path: string, model: string | undefined, terminal: Terminal): Promise<void> {
  const files = await readAnyAdapter(path, model);
  const { config, tensors } = files;
  const modules = describeModules(files);
  const count = tensors.reduce((n, { tensor }) => n + sizeOf(tensor.shape), 0);
  const base = fromMetadata(files.metadata);
  const options = notableOptions(files).filter(([key]) =>
    !/^(target_modules|base_model_name_or_path|task_type)$/.test(key)
  );
  const lines = [
    `adapter    ${path} (${adapterFormat(path)}): ${formatCount(count)} numbers in ${tensors.length} tensors`,
    `base       ${config.base_model_name_or_path ?? "(not named)"}${base ? `, trained on ${describeBase(base)}` : ""}`,
    `keys       ${tensors[0].key.slice(0, tensors[0].key.indexOf(tensors[0].module))}${tensors[0].module}…`,
    ...options.map(([key, value], i) => `${i === 0 ? "options" : "       "}    ${key} ${JSON.stringify(value)}`),
    "",
    ...columns(
      alike(modules, (m) => `${withoutLayer(m.module)} ${m.parts} ${m.r} ${m.scaling} ${m.shapes}`)
        .map(({ first: m, count: n }) => [
          withoutLayer(m.module),
          m.parts.join(" "),
          m.r === null ? "" : `r ${m.r}`,
          m.scaling === null ? "" : `scaling ${Number(m.scaling.toPrecision(6))}`,
          times(n),
        ]),
    ),
  ];
  let notes: readonly string[] = [];
  if (model !== undefined) {
    using outlined = await outlineBase(model, path, { device: nowhere });
    const fitted = fitAdapter(files, moduleNames(outlined.outline));
    const amiss = [
      ...fitted.unexpected.map((key) => `unexpected ${key}`),
      ...fitted.missing.map((key) => `missing ${key}`),
    ];
    if (amiss.length > 0) {
      throw new FileError(`${files.path} does not fit ${model}: ${amiss.slice(0, 12).join(", ")}. Give its own base.`);
    }
    notes = fitted.notes;
    lines.push("", `fits       ${model}, ${fitted.modules.size} modules`, ...notes.map((note) => `note       ${note}`));
  }
  terminal.print(lines.join("\n"));
  terminal.result({
    kind: "adapter",
    path,
    format: adapterFormat(path),
    config: files.raw,
    base,
    parameters: count,
    modules,
    notes,
  });
}

function describeModules({ config, tensors }: AdapterFiles) {
  return [...Map.groupBy(tensors, ({ module }) => module)].map(([module, parts]) => {
    const a = parts.find(({ part }) => part.leaf === "A");
    const r = a === undefined ? null : a.tensor.shape[0];
    return {
      ...{ module, r, parts: parts.map(({ part }) => part.leaf) },
      scaling: r === null ? null : adapterScaling(config, module, r),
      shapes: parts.map(({ tensor }) => tensor.shape),
    };
  });
}
