/** The inputs of text models, checked: an input that does not match the ids is named. */
import { formatAval, sameShape } from "../core/aval.ts";
import { DataError, ShapeError } from "../core/errors.ts";
import type { Value } from "../core/ir/graph.ts";
import type { LanguageModelSizes, TokenInputs } from "../core/model.ts";
import { broadcastTo, reshape } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { max, ne, sub } from "../core/ops/elementwise.ts";
import { argmax } from "../core/ops/reduce.ts";
import { iota } from "../core/ops/structure.ts";
import type { Operand } from "../core/tensor.ts";

/** The inputs of a model as values. */
export interface TokenValues {
  /** i32[B,T]. */
  readonly ids: Value;
  /** i32[B,T]. */
  readonly mask?: Value;
  /** bool[B,T]: where the mask is not 0. */
  readonly seen?: Value;
  /** i32[B,T] or [1,T]. */
  readonly positionIds?: Value;
  /** i32[B,T]. */
  readonly documentStart?: Value;
  /** i32[B,T]. */
  readonly tokenTypeIds?: Value;
}

/**
 * Checks a model's inputs. A sequence that the model has no positions for is refused: a lookup past the last one would be
 * answered with the last one.
 *
 * @throws {ShapeError} for an input of another shape or dtype
 * @throws {DataError} for a sequence that is longer than the context
 */
export function readTokenInputs(inputs: TokenInputs, { contextLength }: LanguageModelSizes): TokenValues {
  const ids = asValue(inputs.inputIds);
  if (ids.shape.length !== 2 || ids.dtype !== "i32") {
    throw new ShapeError(`a model of text reads token ids as i32[B,T], not ${formatAval(ids.aval)}`);
  }
  const [b, t] = ids.shape;
  if (t > contextLength) {
    throw new DataError(
      `the sequence has ${t} tokens, and the model's context is ${contextLength}: cut it, or choose a model with a ` +
        `longer context`,
    );
  }
  const read = (name: keyof TokenInputs, shared = false): Value | undefined => {
    const given: Operand | undefined = inputs[name];
    if (given === undefined) return undefined;
    const value = asValue(given, "i32");
    const fits = sameShape(value.shape, [b, t]) || (shared && sameShape(value.shape, [1, t]));
    if (fits && value.dtype === "i32") return value;
    throw new ShapeError(`${name} is i32[${b},${t}] beside these token ids, not ${formatAval(value.aval)}`);
  };
  const mask = read("attentionMask");
  return {
    ids,
    mask,
    seen: mask && ne(mask, 0),
    positionIds: read("positionIds", true),
    documentStart: read("documentStart"),
    tokenTypeIds: read("tokenTypeIds"),
  };
}

/** Where the tokens of a decoder stand: as the inputs say, or by {@link defaultPositions}. */
export function positionsOf(given: TokenValues): Value {
  return given.positionIds ?? defaultPositions(given);
}

/** Where the tokens of an encoder stand: as the inputs say, as it counts them itself, or from the start of each row. */
export function encoderPositions(
  inputs: TokenInputs,
  sizes: LanguageModelSizes,
  own?: (ids: Value) => Value,
): Value {
  const { ids, positionIds } = readTokenInputs(inputs, sizes);
  return positionIds ?? own?.(ids) ?? iota([1, ids.shape[1]], 1);
}

/**
 * What is wrong with ids of a row, as the end of a sentence that begins with the row: a number that is no id, or one that the
 * embedding has no row for; null where nothing is. A lookup past the last row would be answered with the last one.
 */
export function outsideTable(ids: readonly number[], rows: number): string | null {
  const at = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= rows);
  if (at < 0) return null;
  const largest = ids.reduce((most, id) => Math.max(most, id), ids[at]);
  return Number.isInteger(ids[at]) && ids[at] >= rows
    ? `has token ids up to ${largest}, and the model's embedding has ${rows} rows, 0 to ${
      rows - 1
    }: use the tokenizer that ` +
      "belongs to the model, or a model with rows for the tokens that were added."
    : `has the token id ${ids[at]}, and ids are whole numbers from 0 to ${rows - 1}.`;
}

/**
 * Positions counted from the start of each token's document, or from each sequence's first real token, [B,T]; [1,T] where
 * neither is given. Padding before it is at 0; what comes after the last real token counts on, so that padding on the right
 * changes nothing.
 */
export function defaultPositions({ ids, mask, documentStart }: TokenValues): Value {
  const [b, t] = ids.shape;
  if (documentStart !== undefined) return max(sub(iota([b, t], 1), documentStart), 0);
  if (mask === undefined) return iota([1, t], 1);
  const first = broadcastTo(reshape(argmax(mask, 1), [b, 1]), [b, t]);
  return max(sub(iota([b, t], 1), first), 0);
}
