/** `lowrank diff`: where two adapters, or two models, differ. */
import { sameShape } from "../core/aval.ts";
import { FileError } from "../core/errors.ts";
import { architectures } from "../models/load/load_model.ts";
import { pathKind } from "../models/load/files/byte_source.ts";
import { openModel } from "../models/load/place.ts";
import { matchName, type WeightSource } from "../models/load/weights.ts";
import { type AdapterFiles } from "../formats/peft/files.ts";
import { toF32 } from "../formats/host_tensors.ts";
import type { OptionTable } from "../train/options/option_table.ts";
import { adapterFormat, notableOptions, readAnyAdapter } from "./adapter_input.ts";
import { columns } from "./columns.ts";
import { type Command, formatUsage, readFlags, type Terminal, UsageError } from "./command.ts";

const table = {
  model: { kind: "text", value: "PATH", help: "The base of adapters in llama.cpp's or mlx-lm's format" },
  all: { kind: "switch", default: false, help: "Also list the tensors that are equal" },
} as const satisfies OptionTable;

export const command: Command = {
  name: "diff",
  summary: "where two adapters, or two models, differ",
  usage: formatUsage({
    call: "diff A B [OPTIONS]",
    table,
    example: "lowrank diff out/adapter out/checkpoint/adapter",
    more: "Names are matched whatever class saved them. Differences are max|a - b|, and that as a share of max|b|.",
  }),
  run: async (args, terminal) => {
    const { options, rest: [a, b] } = readFlags(args, table, 2);
    if (a === undefined || b === undefined) {
      throw new UsageError("two paths are needed: name two adapters or two models");
    }
    const [one, two] = [a, b].map(isAdapterPlace);
    if (one !== two) {
      throw new FileError(`${one ? a : b} is an adapter and ${one ? b : a} is not: give two of the same kind.`);
    }
    const found = one ? await diffAdapters(a, b, options.model) : await diffModels(a, b);
    report(a, b, found, options.all ?? false, terminal);
  },
};

function isAdapterPlace(path: string): boolean {
  if (pathKind(path) === null) throw new FileError(`There is nothing at ${path}: give two adapters or two models.`);
  if (adapterFormat(path) === "mlx") return true;
  return pathKind(`${path}/adapter_config.json`) === "file";
}

interface Difference {
  readonly name: string;
  readonly shape: readonly number[];
  readonly difference: number;
  readonly share: number;
}

interface Found {
  readonly options: readonly { readonly key: string; readonly a: unknown; readonly b: unknown }[];
  readonly onlyA: readonly string[];
  readonly onlyB: readonly string[];
  readonly shapes: readonly { readonly name: string; readonly a: readonly number[]; readonly b: readonly number[] }[];
  readonly tensors: readonly Difference[];
}

async function diffAdapters(a: string, b: string, model: string | undefined): Promise<Found> {
  const [one, two] = [await readAnyAdapter(a, model), await readAnyAdapter(b, model)];
  const [ours, other] = [one, two].map((files) => new Map(notableOptions(files)));
  const read = (files: AdapterFiles) => {
    const tensors = new Map(files.tensors.map(({ key, tensor }) => [key, tensor]));
    return { names: [...tensors.keys()], read: (name: string) => toF32(tensors.get(name)!) };
  };
  return {
    options: differences(ours, other),
    ...compare(read(one), read(two)),
  };
}

/** Keys whose values differ. Lists of names have no order. */
function differences(a: ReadonlyMap<string, unknown>, b: ReadonlyMap<string, unknown>): Found["options"] {
  const text = (value: unknown) => JSON.stringify(Array.isArray(value) ? value.toSorted() : value ?? null);
  return [...new Set([...a.keys(), ...b.keys()])].sort()
    .filter((key) => text(a.get(key)) !== text(b.get(key)))
    .map((key) => ({ key, a: a.get(key) ?? null, b: b.get(key) ?? null }));
}

async function diffModels(a: string, b: string): Promise<Found> {
  using one = await openModel(a, architectures, {});
  using two = await openModel(b, architectures, {});
  const read = (source: WeightSource) => ({
    names: source.names,
    read: (name: string) => toF32(source.read(name, "f32")),
  });
  return {
    options: differences(new Map(Object.entries(one.config.raw)), new Map(Object.entries(two.config.raw))),
    ...compare(read(one.source), read(two.source)),
  };
}

interface Side {
  readonly names: readonly string[];
  read(name: string): { readonly shape: readonly number[]; readonly data: Float32Array };
}

function compare(a: Side, b: Side): Omit<Found, "options"> {
  const others = new Set(b.names);
  const pairs = a.names.map((name) => [name, matchKey(name, others)] as const);
  const used = new Set(pairs.map(([, other]) => other));
  const shapes: Found["shapes"][number][] = [], tensors: Difference[] = [];
  for (const [name, other] of pairs) {
    if (other === null) continue;
    const [x, y] = [a.read(name), b.read(other)];
    if (!sameShape(x.shape, y.shape)) {
      shapes.push({ name, a: x.shape, b: y.shape });
      continue;
    }
    let [difference, size] = [0, 0];
    for (let i = 0; i < x.data.length; i++) {
      const apart = Math.abs(x.data[i] - y.data[i]);
      if (!(apart <= difference)) difference = apart;
      size = Math.max(size, Math.abs(y.data[i]));
    }
    tensors.push({ name, shape: x.shape, difference, share: difference === 0 ? 0 : difference / size });
  }
  return {
    onlyA: pairs.filter(([, other]) => other === null).map(([name]) => name),
    onlyB: b.names.filter((name) => !used.has(name)),
    ...{ shapes, tensors },
  };
}

/** A name as the other side spells it; keys of adapters begin with PEFT's wrappers. */
function matchKey(name: string, others: ReadonlySet<string>): string | null {
  const wrapped = /^base_model\.model\.(.*)$/.exec(name);
  if (wrapped === null) return matchName(name, others);
  const found = matchName(wrapped[1], { has: (inner) => others.has(`base_model.model.${inner}`) });
  return found === null ? null : `base_model.model.${found}`;
}

function report(a: string, b: string, found: Found, all: boolean, terminal: Terminal): void {
  const { options, onlyA, onlyB, shapes, tensors } = found;
  const different = tensors.filter(({ difference }) => difference !== 0);
  const brief = (value: unknown) => {
    const text = JSON.stringify(value);
    return text.length > 30 ? `${text.slice(0, 29)}…` : text;
  };
  const lines = [
    ...columns(options.map(({ key, a, b }) => [key, brief(a), brief(b)])),
    ...onlyA.map((name) => `only in ${a}: ${name}`),
    ...onlyB.map((name) => `only in ${b}: ${name}`),
    ...shapes.map(({ name, a, b }) => `${name} is [${a}] and [${b}]`),
    ...columns(
      (all ? tensors : different).map(({ name, difference, share }) => [
        name.replace("base_model.model.", ""),
        difference.toExponential(1),
        share.toExponential(1),
      ]),
    ),
    `${tensors.length} tensors compared: ${tensors.length - different.length} equal, ${different.length} different` +
    (options.length + onlyA.length + onlyB.length + shapes.length === 0 ? "" : "; see above for what else differs"),
  ];
  terminal.print(lines.join("\n"));
  const equal = different.length + options.length + onlyA.length + onlyB.length + shapes.length === 0;
  terminal.result({ a, b, equal, ...found });
}
