/** Rows of embeddings that are trained, and nothing else of them, as PEFT's trainable_token_indices. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { reshape } from "../../core/ops/broadcast.ts";
import { asValue, constant } from "../../core/ops/constant.ts";
import { eq, sub } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { concat, iota, slice, transpose } from "../../core/ops/structure.ts";
import type { Module } from "../follow/analyse.ts";
import { widened } from "../follow/effect.ts";
import type { TuneOptions } from "../options.ts";
import { matchesEntry, noSuch } from "../targets.ts";
import type { Edit, Method, WeightSite } from "./method.ts";

/** An embedding of which some rows are trained. A tied head's are trained with them, as PEFT does. */
interface TokenSite extends Edit, WeightSite {
  readonly tokens: readonly number[];
}

/** Row numbers as a value, i32[n]. */
function tokenIds({ tokens }: TokenSite): Value {
  return concat(tokens.map((token) => reshape(constant(token, "i32"), [1])), 0);
}

/** A matrix with other rows at some places. */
function withRows(table: Value, { tokens }: TokenSite, rows: Value): Value {
  const order = tokens.map((place, i) => ({ place, i })).sort((a, b) => a.place - b.place);
  const pieces: Value[] = [];
  let from = 0;
  for (const { place, i } of order) {
    if (place > from) pieces.push(slice(table, 0, from, place));
    pieces.push(slice(rows, 0, i, i + 1));
    from = place + 1;
  }
  if (from < table.shape[0]) pieces.push(slice(table, 0, from, table.shape[0]));
  return concat(pieces, 0);
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

export const method: Method<TokenSite, TuneOptions<any>> = {
  name: "tokens",
  options: {
    trainableTokens: {
      peft: "trainable_token_indices",
      file: { is: "a list of token ids, or lists by the embedding's name", default: null },
      recent: true,
    },
  },
  keys: [{ leaf: "tokens", ending: ".token_adapter.trainable_tokens_delta" }],
  sites: ({ modules, taken }, { trainableTokens: given }) => {
    if (given === undefined) return [];
    const embeddings = modules.filter((m) => m.kind === "embedding" && m.part === null && m.refusal === null);
    const lists = Array.isArray(given)
      ? [[inputEmbedding(embeddings), given] as const]
      : Object.entries(given as Record<string, readonly number[]>).map(([entry, tokens]) => {
        const found = embeddings.filter((m) => matchesEntry(m.path, entry) || matchesEntry(m.hub, entry));
        if (found.length !== 1) throw noSuch(`trainableTokens "${entry}"`, entry, embeddings);
        return [found[0], tokens] as const;
      });
    return lists.map(([m, tokens]): TokenSite => {
      const { path, leafPath, aval: { shape: [rows, width] } } = m;
      const wrong = tokens.find((t, i) => !Number.isInteger(t) || t < 0 || t >= rows || tokens.indexOf(t) !== i);
      if (tokens.length === 0 || wrong !== undefined) {
        throw new OptionError(
          `trainableTokens of "${path}" ${
            tokens.length === 0 ? "is empty" : `has ${wrong}`
          }: it takes row numbers from 0 ` +
            `to ${rows - 1}, each once`,
        );
      }
      if (taken.some((site) => site.path === path && site.method.effect === undefined && "weight" in site.trained)) {
        throw new OptionError(
          `"${path}" is trained in full by modulesToSave, and rows of it by trainableTokens: name one`,
        );
      }
      const other = taken.find((site) => site.leafPath === leafPath && site.method.readsWeight);
      if (other !== undefined) {
        throw new OptionError(
          `trainableTokens and ${other.method.name} on "${path}" exclude each other: leave it out of the targets`,
        );
      }
      const shape = [tokens.length, width];
      return {
        ...m,
        ...{ method, tokens, only: null, into: leafPath, split: null, trained: { tokens: shape } },
        saved: { path, part: "tokens", by: "trainableTokens", shape, tokens },
      };
    });
  },
  first: (site, leaf) => ({ tokens: widened(gather(leaf, tokenIds(site))) }),
  /** A column of ones and zeros for each row, times new less old. */
  effect: (site, { tokens }, weight) => {
    const ids = tokenIds(site);
    const chosen = eq(iota([weight.shape[0], site.tokens.length], 0), ids);
    const difference = sub(asValue(tokens!), widened(gather(weight, ids)));
    return { pair: { A: transpose(widened(chosen)), B: transpose(difference), scaling: 1 } };
  },
  replace: (site, { tokens }, leaf) => withRows(widened(asValue(leaf)), site, asValue(tokens!)),
  lost: (site, _entry, leaf) => ({ tokens: gather(leaf, tokenIds(site)) }),
  restore: (site, leaf, lost) => withRows(asValue(leaf), site, asValue(lost("tokens"))),
  config: (sites) => {
    const name = (path: string) => path.slice(path.lastIndexOf(".") + 1);
    return { trainable_token_indices: Object.fromEntries(sites.map(({ path, tokens }) => [name(path), tokens])) };
  },
};
