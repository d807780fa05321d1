/** Leaves of the model that are trained themselves beside the adapters: whole modules, biases, rows of tokens. */
import { formatAval } from "../core/aval.ts";
import { isFloat } from "../core/dtype.ts";
import { OptionError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import { isPacked } from "../core/packed/blocks.ts";
import type { FlatTree } from "../core/tree.ts";
import type { Module } from "./follow/analyse.ts";
import type { LoraOptions, Saved } from "./options.ts";
import type { Adapted } from "./follow/plan.ts";
import { isBelow, matchesEntry, noSuch } from "./targets.ts";

/** A leaf that is trained, with where it belongs. */
export interface Edit extends Saved {
  /** The leaf of the parameters that it starts from. */
  readonly from: string;
  /** Where it goes: another path than `from` where one use of a tied weight is meant. */
  readonly into: string;
  /** The path at which the other name of a tied weight keeps the base's, or null. */
  readonly keep: string | null;
}

/** One name of a leaf: a tied weight has two. */
interface Named {
  readonly path: string;
  readonly hub: string;
  readonly part: "weight" | "bias";
  readonly from: string;
  readonly into: string;
  readonly keep: string | null;
}

/** What the options train of the model itself, in the order of the parameters. */
export function planSaved(
  params: FlatTree<Leaf>,
  modules: readonly Module[],
  adapted: readonly Adapted[],
  options: LoraOptions<any>,
  hubName: (path: string) => string,
): Edit[] {
  const { bias = "none", modulesToSave = [], trainableTokens, tie = "use" } = options;
  const names = namesOf(params, modules, tie, hubName);
  const edits = new Map<string, Edit>();
  const add = (name: Named, by: Saved["by"]) => {
    const aval = params.leaves[params.paths.indexOf(name.from)].aval;
    if (!isFloat(aval.dtype) && !isPacked(aval.dtype)) {
      throw new OptionError(`${by} names ${name.from}, which is ${formatAval(aval)}: only floats can be trained`);
    }
    if (!edits.has(name.into)) edits.set(name.into, { ...name, by, shape: aval.shape });
  };
  for (const entry of modulesToSave as readonly string[]) {
    const found = names.filter((name) => isBelow(name, entry));
    if (found.length === 0) throw noSuch(`modulesToSave "${entry}"`, entry, modules.filter((m) => m.part === null));
    for (const name of found) add(name, "modulesToSave");
  }
  const biases = new Set(adapted.map((m) => m.bias));
  for (const name of names) {
    if (name.part === "bias" && (bias === "all" || (bias === "lora" && biases.has(name.from)))) add(name, "bias");
  }
  const whole = new Set([...edits.values()].filter((e) => e.part === "weight").map((e) => e.path));
  const clash = adapted.find((m) => whole.has(m.part?.of ?? m.path));
  if (clash) {
    throw new OptionError(
      `"${clash.path}" is in targets and, by modulesToSave, trained in full: name it in one of them`,
    );
  }
  const tokens = trainableTokens === undefined ? [] : tokenEdits(trainableTokens, modules, adapted, whole);
  return [...edits.values(), ...tokens];
}

/** Every leaf by the module that it belongs to, under each of its names. */
function namesOf(
  params: FlatTree<Leaf>,
  modules: readonly Module[],
  tie: "use" | "all",
  hubName: (path: string) => string,
): Named[] {
  return params.paths.flatMap((from): Named[] => {
    const part = /(^|\.)bias$/.test(from) ? "bias" : "weight";
    const path = from.replace(/\.(weight|bias)$/, "");
    const one = { path, hub: hubName(path), part, from, into: from, keep: null } as const;
    const alias = modules.find((m) => m.leafPath === from && m.only === "product" && m.part === null);
    if (alias === undefined) return [one];
    const into = tie === "all" ? from : `${alias.path}.weight`;
    const other: Named = { ...one, path: alias.path, hub: alias.hub, into };
    return [{ ...one, keep: tie === "all" ? null : `${alias.path}.weight` }, other];
  });
}

/** Rows of embeddings. A tied head's rows are trained with them, as PEFT does. */
function tokenEdits(
  given: NonNullable<LoraOptions<any>["trainableTokens"]>,
  modules: readonly Module[],
  adapted: readonly Adapted[],
  whole: ReadonlySet<string>,
): Edit[] {
  const embeddings = modules.filter((m) => m.kind === "embedding" && m.part === null && m.refusal === null);
  const lists = Array.isArray(given)
    ? [[inputEmbedding(embeddings), given] as const]
    : Object.entries(given as Record<string, readonly number[]>).map(([entry, tokens]) => {
      const found = embeddings.filter((m) => matchesEntry(m.path, entry) || matchesEntry(m.hub, entry));
      if (found.length !== 1) throw noSuch(`trainableTokens "${entry}"`, entry, embeddings);
      return [found[0], tokens] as const;
    });
  return lists.map(([m, tokens]) => {
    const [rows, width] = m.aval.shape;
    const wrong = tokens.find((t, i) => !Number.isInteger(t) || t < 0 || t >= rows || tokens.indexOf(t) !== i);
    if (tokens.length === 0 || wrong !== undefined) {
      throw new OptionError(
        `trainableTokens of "${m.path}" ${
          tokens.length === 0 ? "is empty" : `has ${wrong}`
        }: it takes row numbers from 0 ` +
          `to ${rows - 1}, each once`,
      );
    }
    if (whole.has(m.path)) {
      throw new OptionError(
        `"${m.path}" is trained in full by modulesToSave, and rows of it by trainableTokens: name one`,
      );
    }
    if (adapted.some((a) => a.leaf === m.leaf && a.match.dora)) {
      throw new OptionError(`trainableTokens and dora on "${m.path}" exclude each other: leave it out of the targets`);
    }
    const { path, leafPath } = m;
    const shape = [tokens.length, width];
    return { path, part: "tokens", by: "trainableTokens", shape, tokens, from: leafPath, into: leafPath, keep: null };
  });
}

/** The embedding of tokens: the one that the model's own input looks up. */
function inputEmbedding(embeddings: readonly Module[]): Module {
  const found = embeddings.filter((m) => m.byInput);
  if (found.length === 1) return found[0];
  throw new OptionError(
    `trainableTokens is a list, but ${
      found.length === 0 ? "no embedding is" : `${found.length} embeddings are`
    } looked ` +
      `up by an input: name it, as in { ${embeddings[0]?.path ?? "embedding"}: [0] }`,
  );
}
