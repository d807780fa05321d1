/**
 * Where an adapter acts that waits for its invocation: from the start of the last time that some tokens occur in a text.
 * Source: Greenewald et al. 2025, "Activated LoRA: Fine-tuned LLMs for Intrinsics".
 */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { StepInputs, TokenInputs } from "../../core/model.ts";
import { broadcastTo, full, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { add, and, convert, eq, ge, select } from "../../core/ops/elementwise.ts";
import { reduceMax } from "../../core/ops/reduce.ts";
import { concat, iota, slice } from "../../core/ops/structure.ts";
import type { Acts } from "./method.ts";

/**
 * An adapter that acts from the last invocation on, itself included; not at all in texts without one.
 *
 * @throws {OptionError} for no tokens, or what is no token
 */
export function afterInvocation(tokens: readonly number[]): Acts {
  if (!Array.isArray(tokens) || tokens.length === 0 || tokens.some((id) => !Number.isSafeInteger(id) || id < 0)) {
    throw new OptionError(
      `aloraInvocationTokens is ${JSON.stringify(tokens)}: it takes the ids of at least one token, from 0 on`,
    );
  }
  return {
    why: "it acts only from its invocation on, and merged weights act everywhere",
    from(ids) {
      for (let at = ids.length - tokens.length; at >= 0; at--) {
        if (tokens.every((token, i) => ids[at + i] === token)) return at;
      }
      return null;
    },
    at: (inputs) => isStep(inputs) ? inStep(inputs) : select(inTexts(inputs as TokenInputs, tokens), 1, 0),
  };
}

const isStep = (inputs: unknown): inputs is StepInputs => (inputs as StepInputs | null)?.cache !== undefined;

/** Which of a step's tokens stand at or after the place where the adapter begins. */
function inStep({ inputIds, index, from }: StepInputs): Value {
  if (from === undefined) {
    throw new OptionError(
      "the step of an adapter that waits for its invocation takes from: where in the cache it begins",
    );
  }
  const shape = asValue(inputIds).shape;
  const places = add(iota(shape, 1), index);
  return select(ge(places, broadcastTo(reshape(from, [shape[0], 1]), shape)), 1, 0);
}

/** bool[B,T]. */
function inTexts({ inputIds, documentStart }: TokenInputs, tokens: readonly number[]): Value {
  if (inputIds === undefined) throw new OptionError("aloraInvocationTokens is for models that read token ids");
  const ids = asValue(inputIds), [b, t] = ids.shape, starts = t - tokens.length + 1;
  if (starts < 1) return eq(full([b, t], 0), 1);
  const part = (x: Value, i: number) => slice(x, 1, i, i + starts);
  const document = documentStart === undefined ? undefined : asValue(documentStart);
  // An invocation lies in one document.
  const found = tokens.flatMap((token, i) => [
    eq(part(ids, i), token),
    ...(document && i > 0 ? [eq(part(document, i), part(document, 0))] : []),
  ]).reduce((a, b) => and(a, b));
  // As f32, in which maxima are taken and places are exact.
  const place = select(found, convert(iota([b, starts], 1), "f32"), -1);
  const places = concat([place, ...(starts < t ? [full([b, t - starts], -1)] : [])], 1);
  const last = document === undefined
    ? broadcastTo(reshape(reduceMax(places, 1), [b, 1]), [b, t])
    : lastInDocument(places, document);
  return and(ge(last, 0), ge(convert(iota([b, t], 1), "f32"), last));
}

/** The greatest of the places in each token's document, f32[B,T]. */
function lastInDocument(places: Value, document: Value): Value {
  const [b, t] = places.shape;
  const across = (x: Value) => broadcastTo(reshape(x, [b, 1, t]), [b, t, t]);
  const own = broadcastTo(reshape(document, [b, t, 1]), [b, t, t]);
  return reduceMax(select(eq(own, across(document)), across(places), -1), 2);
}
