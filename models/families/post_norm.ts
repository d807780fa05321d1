/** The block that BERT and its like share, as data: what its modules are called is all in which they differ. */
import { ShapeError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, TokenInputs } from "../../core/model.ts";
import { gelu } from "../../core/nn/activation.ts";
import { attention } from "../../core/nn/attention.ts";
import { layerNorm } from "../../core/nn/norm.ts";
import { full, reshape } from "../../core/ops/broadcast.ts";
import { add, convert } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { iota } from "../../core/ops/structure.ts";
import { checkpoint } from "../../core/transforms/checkpoint.ts";
import { readTokenInputs } from "../token_inputs.ts";
import type { TextSizes } from "./family.ts";
import {
  type ActivationName,
  activationOf,
  at,
  flatLinear,
  flatNorm,
  type FlatShapes,
  type LayerNormParams,
  linear,
  linearAt,
} from "./layers.ts";

/** The sizes of one encoder of this kind. */
export interface PostNormSizes extends TextSizes {
  readonly activation: ActivationName;
  /** The width of the tables, which a projection brings to that of the layers where it is another. */
  readonly embeddingWidth: number;
  /** The rows of the table of places: more than the context where places do not count from 0. */
  readonly places: number;
  /** How many texts a token may be told to be of; 0 where there is no such table. */
  readonly tokenTypes: number;
}

/** What the modules are called: paths in a layer, and where the layers are. */
export interface PostNormNames {
  readonly layers: string;
  readonly query: string;
  readonly key: string;
  readonly value: string;
  /** After attention, and the norm of its sum with what attention read. */
  readonly mix: string;
  readonly mixNorm: string;
  /** The feed-forward layers, and the norm of their sum with what they read. */
  readonly inner: string;
  readonly outer: string;
  readonly outerNorm: string;
}

const tables = {
  words: "embeddings.word_embeddings",
  places: "embeddings.position_embeddings",
  types: "embeddings.token_type_embeddings",
};
const [embeddingNorm, projection] = ["embeddings.LayerNorm", "embeddings_project"];

/** `x` through the norm at a path. */
function normAt(x: Value, params: unknown, path: string, eps: number): Value {
  const { weight, bias } = at(params, path) as LayerNormParams;
  return layerNorm(x, weight, bias, eps);
}

/** A state through a layer, an activation and a norm: what heads make of it before they compare it with words. */
export const transformed = (
  params: unknown,
  states: Value,
  dense: string,
  norm: string,
  eps: number,
  act: (x: Value) => Value = gelu,
): Value => normAt(act(linear(states, linearAt(params, dense))), params, norm, eps);

/** The shape of every weight by its path. */
export function postNormShapes(names: PostNormNames, sizes: PostNormSizes): FlatShapes {
  const { vocabSize, places, tokenTypes, width, embeddingWidth, layers, innerWidth } = sizes;
  const table = (path: string, rows: number) => ({ [`${path}.weight`]: [rows, embeddingWidth] });
  const layer = (path: string): FlatShapes => ({
    ...flatLinear(`${path}.${names.query}`, width, width),
    ...flatLinear(`${path}.${names.key}`, width, width),
    ...flatLinear(`${path}.${names.value}`, width, width),
    ...flatLinear(`${path}.${names.mix}`, width, width),
    ...flatNorm(`${path}.${names.mixNorm}`, width),
    ...flatLinear(`${path}.${names.inner}`, width, innerWidth),
    ...flatLinear(`${path}.${names.outer}`, innerWidth, width),
    ...flatNorm(`${path}.${names.outerNorm}`, width),
  });
  return Object.assign(
    {},
    table(tables.words, vocabSize),
    table(tables.places, places),
    tokenTypes > 0 ? table(tables.types, tokenTypes) : {},
    flatNorm(embeddingNorm, embeddingWidth),
    embeddingWidth === width ? {} : flatLinear(projection, embeddingWidth, width),
    ...Array.from({ length: layers }, (_, i) => layer(`${names.layers}.${i}`)),
  );
}

/**
 * The embedding f32[B,T,D] and the stream after each layer. Padding is seen by no token; its own states mean nothing.
 * `positions`: the row of the table of places for each token; by default its place in its row. `byBlocks`: of each layer only
 * its input is kept for the backward pass.
 */
export function postNormStates(
  names: PostNormNames,
  sizes: PostNormSizes,
  params: unknown,
  inputs: TokenInputs,
  { byBlocks, positions }: { readonly byBlocks: boolean; readonly positions?: (ids: Value) => Value },
): Value[] {
  const { width, heads, eps, tokenTypes } = sizes;
  const { ids, seen: mask, positionIds, tokenTypeIds, documentStart } = readTokenInputs(inputs, sizes);
  if (documentStart !== undefined) {
    throw new ShapeError("a BERT reads one text a row: documents can't be packed where every token sees all others");
  }
  const [b, t] = ids.shape;
  const activate = activationOf(sizes.activation);
  const norm = (x: Value, params: unknown, path: string) => normAt(x, params, path, eps);
  const look = (path: string, rows: Value) => convert(gather(at(params, `${path}.weight`) as Leaf, rows), "f32");

  const places = look(tables.places, positionIds ?? positions?.(ids) ?? iota([1, t], 1));
  const marks = tokenTypes > 0 ? add(places, look(tables.types, tokenTypeIds ?? full([1, t], 0, "i32"))) : places;
  const embedded = norm(add(look(tables.words, ids), marks), params, embeddingNorm);
  const states = [sizes.embeddingWidth === width ? embedded : linear(embedded, linearAt(params, projection))];
  for (const layer of at(params, names.layers) as readonly unknown[]) {
    const block = (x: Value) => {
      const project = (path: string) => reshape(linear(x, linearAt(layer, path)), [b, t, heads, width / heads]);
      const seen = attention(project(names.query), project(names.key), project(names.value), { mask, causal: false });
      const mixed = norm(
        add(x, linear(reshape(seen, [b, t, width]), linearAt(layer, names.mix))),
        layer,
        names.mixNorm,
      );
      const inner = activate(linear(mixed, linearAt(layer, names.inner)));
      return norm(add(mixed, linear(inner, linearAt(layer, names.outer))), layer, names.outerNorm);
    };
    states.push((byBlocks ? checkpoint(block) : block)(states.at(-1)!));
  }
  return states;
}
