/** Cross-entropies: of next-token logits, of a text's labels. One row kernel forward, one backward. */
import { formatAval, sameShape } from "../aval.ts";
import { OptionError, ShapeError } from "../errors.ts";
import { defineComposite } from "../ir/composite.ts";
import { bind, bind1, type Primitive, type Value } from "../ir/graph.ts";
import { broadcastTo, full, reduceSum, reshape } from "../ops/broadcast.ts";
import { asValue } from "../ops/constant.ts";
import { add, convert, div, eq, exp, log, max, mul, ne, neg, select, sub } from "../ops/elementwise.ts";
import { gather, scatterAdd } from "../ops/indexing.ts";
import { reduceMax } from "../ops/reduce.ts";
import { concat, iota, slice } from "../ops/structure.ts";
import type { Operand } from "../tensor.ts";
import type { Scalar } from "../tree_types.ts";
import { checkpoint } from "../transforms/checkpoint.ts";
import { sumOver } from "../transforms/sum_over.ts";
import { type RowWise, rowWise } from "./row_chunks.ts";
import { checkOptions, type OptionNames } from "../options.ts";

/** The label of a token that is not to be predicted, as in PyTorch and transformers. */
export const ignoredLabel: -100 = -100;

/** A value per row as a column [N,1], and stretched over the row [N,V]. */
const column = (x: Value) => reshape(x, [...x.shape, 1]);
const alongRow = (x: Value, shape: readonly number[]) => broadcastTo(column(x), shape);

/** Which column of each row is its label's. */
const isLabel = (shape: readonly number[], labels: Value) => eq(iota(shape, 1), alongRow(labels, shape));

/** What is added to the cross-entropy of a row. */
export interface CrossEntropyOptions {
  /** The part of a label that is spread over all columns, 0 to 1. Default 0. Source: Szegedy et al. 2016. */
  readonly labelSmoothing?: number;
  /** The weight of the squared logarithm of Σ e^logit, which keeps logits small. Default 0. Source: Chowdhery et al. 2022, "PaLM". */
  readonly zLoss?: number;
}

/** The parts of a row's loss: its logits below the highest, their exponentials, the sum of these, its logarithm in full. */
function lossParts(logits: Value, labels: Value, { labelSmoothing, zLoss }: Required<CrossEntropyOptions>) {
  const highest = reduceMax(logits, -1, { keep: true });
  const shifted = sub(logits, highest);
  const powers = exp(shifted);
  const total = reduceSum(powers, -1, { keep: true });
  const logTotal = log(total), logSum = add(logTotal, highest);
  const picked = reduceSum(select(isLabel(logits.shape, labels), shifted, 0), -1);
  const flat = (x: Value) => reshape(x, labels.shape);
  let loss = sub(flat(logTotal), picked);
  if (labelSmoothing > 0) {
    const spread = sub(flat(logTotal), div(reduceSum(shifted, -1), logits.shape[1]));
    loss = add(mul(loss, 1 - labelSmoothing), mul(spread, labelSmoothing));
  }
  if (zLoss > 0) loss = add(loss, mul(flat(mul(logSum, logSum)), zLoss));
  return { loss: select(eq(labels, ignoredLabel), 0, loss), powers, total, logSum };
}

/** The loss and, in the same pass over the row, its derivative by the logits: what the gradient saves in their place. */
const crossEntropyWithGradPrim = defineComposite<Required<CrossEntropyOptions>>({
  name: "crossEntropyWithGrad",
  define: ([logits, labels], options) => {
    const { shape } = logits, { loss, powers, total, logSum } = lossParts(logits, labels, options);
    const { labelSmoothing, zLoss } = options;
    const wanted = select(
      isLabel(shape, labels),
      full(shape, 1 - labelSmoothing + labelSmoothing / shape[1]),
      labelSmoothing / shape[1],
    );
    const counts = convert(ne(labels, ignoredLabel), "f32");
    const share = div(powers, total);
    const raised = zLoss > 0 ? mul(share, broadcastTo(add(mul(logSum, 2 * zLoss), 1), shape)) : share;
    return [loss, mul(sub(raised, wanted), alongRow(counts, shape))];
  },
  lowering: { kind: "row" },
});

const crossEntropyPrim: Primitive<Required<CrossEntropyOptions>> = {
  ...defineComposite<Required<CrossEntropyOptions>>({
    name: "crossEntropy",
    define: ([logits, labels], options) => [lossParts(logits, labels, options).loss],
    lowering: { kind: "row" },
  }),
  linearize: (inputs, options) => {
    const [loss, slope] = bind(crossEntropyWithGradPrim, inputs, options);
    return { outs: [loss], pullback: ([ct]) => [ct && mul(slope, alongRow(ct, slope.shape)), null] };
  },
};

/**
 * -log softmax(logits)[label] per row: logits f32[N,V], labels i32[N], to f32[N]; 0 where the label is -100.
 *
 * @throws {ShapeError} when the sizes do not fit
 * @throws {OptionError} for a smoothing outside 0 to 1, or a negative weight
 */
export function crossEntropyRows(
  logits: Operand,
  labels: Operand,
  options: CrossEntropyOptions = {},
): Value {
  checkOptions("crossEntropyRows", options, crossEntropyNames);
  const { labelSmoothing = 0, zLoss = 0 } = options;
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new OptionError(`labelSmoothing is ${labelSmoothing}: give a number from 0 to 1`);
  }
  if (!(zLoss >= 0 && zLoss < Infinity)) throw new OptionError(`zLoss is ${zLoss}: give a number of at least 0`);
  const [x, y] = [asValue(logits), asValue(labels, "i32")];
  if (x.shape.length !== 2 || !sameShape(y.shape, [x.shape[0]]) || y.dtype !== "i32") {
    throw new ShapeError(
      `Cannot take the cross-entropy of ${formatAval(x.aval)} and labels ${formatAval(y.aval)}: ` +
        `they are f32[N,V] and i32[N]`,
    );
  }
  return bind1(crossEntropyPrim, [x, y], { labelSmoothing, zLoss });
}

/** What each place of [B,T] is to predict: the label of the next one, and nothing at the end of a sequence. */
export function nextLabels(labels: Operand): Value {
  const value = asValue(labels, "i32");
  const [b, t] = value.shape;
  const last = Math.min(t, 1);
  return concat([slice(value, 1, last, t), full([b, last], ignoredLabel, "i32")], 1);
}

/** f32[]: how many of the labels are to be predicted. */
const labelled = (labels: Value): Scalar => reduceSum(convert(ne(labels, ignoredLabel), "f32"));

/** f32[]: how many tokens of labels i32[B,T] {@link causalLoss} predicts. */
export function labelledTokens(labels: Operand): Scalar {
  return labelled(nextLabels(labels));
}

/** How the losses of tokens become one number. */
export interface CausalLossOptions extends CrossEntropyOptions {
  /**
   * `mean` (by default) divides the sum by the labelled tokens, `sum` by nothing, a count (f32[]) by itself: with
   * accumulation, that of all the micro-batches together.
   */
  readonly reduction?: "mean" | "sum" | Operand;
  /** Rows of logits that are made at a time. By default as many as keep them under 32 MB. */
  readonly chunk?: number;
  /**
   * i32[N], the places b·T + t to compute head and loss at, each once: every place with a label to predict must be among them.
   * By default all of them, including unlabelled ones.
   */
  readonly places?: Operand;
}

const crossEntropyNames: OptionNames<CrossEntropyOptions> = { labelSmoothing: true, zLoss: true };
const causalLossOptions: OptionNames<CausalLossOptions> = {
  ...crossEntropyNames,
  ...{ reduction: true, chunk: true, places: true },
};

/** The most logits that are made at a time. */
const maxLogits = 2 ** 23;
const rowsAtOnce = (columns: number) => Math.max(64, Math.floor(maxLogits / columns / 64) * 64);

/**
 * The loss of predicting each next token: logits f32[B,T,V], labels i32[B,T] (usually the input ids; -100 where nothing is
 * to be predicted), to f32[]. Place t predicts label t + 1. Where no token is labelled the mean is 0, not NaN; whoever reads
 * the data refuses such a batch ({@link labelledTokens}).
 *
 * Where the logits are the product of narrow rows with a head, head and loss are computed together for a chunk of rows at a
 * time, forward and back: each chunk's logits are written once, and read once for their losses and slopes. The whole logits
 * never exist unless something else asks for them, and then the head is computed for that, too.
 *
 * @throws {ShapeError} when the sizes do not fit
 */
export function causalLoss(logits: Operand, labels: Operand, options: CausalLossOptions = {}): Scalar {
  checkOptions("causalLoss", options, causalLossOptions);
  const [x, y] = tokenLogits(logits, labels);
  const { reduction, ...rest } = options, next = nextLabels(y);
  return reduced(sumOfRows(x, next, rest), next, reduction);
}

/**
 * The loss of classifying texts or tokens: logits f32[B,labels] and labels i32[B], or f32[B,T,labels] and i32[B,T] (-100 where
 * there is none), to f32[]: the mean over what is labelled, or what `reduction` says. Where nothing is labelled the mean is 0, not
 * NaN. Of tokens, head and loss are computed together as in {@link causalLoss}, without its shift: place t has label t.
 *
 * @throws {ShapeError} when the sizes do not fit
 */
export function classificationLoss(
  logits: Operand,
  labels: Operand,
  options: CausalLossOptions = {},
): Scalar {
  checkOptions("classificationLoss", options, causalLossOptions);
  const { reduction, ...rest } = options;
  const [x, y] = [asValue(logits), asValue(labels, "i32")];
  const tokens = x.shape.length === 3 && sameShape(x.shape.slice(0, 2), y.shape);
  return reduced(tokens ? sumOfRows(x, y, rest) : reduceSum(crossEntropyRows(x, y, rest)), y, reduction);
}

/** One number of the sum of the losses at some labels. */
function reduced(sum: Scalar, labels: Value, reduction: CausalLossOptions["reduction"] = "mean"): Scalar {
  if (reduction === "sum") return sum;
  return div(sum, reduction === "mean" ? max(labelled(labels), 1) : reduction as Scalar);
}

/** The cross-entropies of logits [B,T,V] and labels [B,T] added up, in chunks of rows where that saves memory. */
function sumOfRows(
  logits: Value,
  labels: Value,
  { chunk, places, ...added }: Omit<CausalLossOptions, "reduction">,
): Scalar {
  const { made, build, ...rows } = rowsAt(logits, labels, places);
  const body = (xs: { sources: readonly Value[]; labels: Value }) =>
    reduceSum(crossEntropyRows(build(xs.sources), xs.labels, added));
  if (made) return body(rows);
  const size = chunk ?? rowsAtOnce(logits.shape[2]);
  return sumOver(body, rows, null, { chunk: Math.min(size, rows.labels.shape[0]) })[0] as Scalar;
}

/** The rows of logits [B,T,V] at some places, or all, and their labels. `made`: they are their own source, made already. */
function rowsAt(logits: Value, labels: Value, places: CausalLossOptions["places"]) {
  const [b, t, v] = logits.shape;
  const at = (rows: Value) => places === undefined ? rows : gather(rows, places);
  const chosen = at(reshape(labels, [b * t]));
  const rows = rowWise(logits);
  const { sources, build }: RowWise = rows ?? { sources: [reshape(logits, [b * t, v])], build: ([row]) => row };
  return { sources: sources.map(at), labels: chosen, build, made: rows === null };
}

/** Logits of tokens and their labels, checked. */
function tokenLogits(logits: Operand, labels: Operand): readonly [Value, Value] {
  const [x, y] = [asValue(logits), asValue(labels, "i32")];
  if (x.shape.length === 3 && sameShape(x.shape.slice(0, 2), y.shape)) return [x, y];
  throw new ShapeError(
    `Cannot take the loss of logits ${formatAval(x.aval)} and labels ${formatAval(y.aval)}: ` +
      `they are f32[B,T,V] and i32[B,T]`,
  );
}

/**
 * The log-probability of each next token: logits f32[B,T,V], labels i32[B,T], to f32[B,T]. Place t has that of label t + 1; 0
 * where nothing is to be predicted. No probability is made on the way, so none is too small.
 *
 * Where the logits are the product of narrow rows with a head, they are made for a chunk of rows at a time, and again on the way
 * back: no more of them exist at once.
 *
 * @throws {ShapeError} when the sizes do not fit
 */
export function tokenLogProbs(
  logits: Operand,
  labels: Operand,
  options: Pick<CausalLossOptions, "chunk" | "places"> = {},
): Value {
  checkOptions("tokenLogProbs", options, { chunk: true, places: true });
  const { chunk, places } = options;
  const [x, y] = tokenLogits(logits, labels);
  const [b, t, v] = x.shape;
  const { sources, labels: chosen, build, made } = rowsAt(x, nextLabels(y), places);
  const count = chosen.shape[0], size = chunk ?? rowsAtOnce(v);
  const rowLosses = (sources: readonly Value[], labels: Value) => crossEntropyRows(build(sources), labels);
  let losses: Value;
  if (made || count <= size) losses = rowLosses(sources, chosen);
  else {
    const part = checkpoint(rowLosses);
    losses = concat(
      Array.from({ length: Math.ceil(count / size) }, (_, i) => {
        const cut = (from: Value) => slice(from, 0, i * size, Math.min(count, (i + 1) * size));
        return part(sources.map(cut), cut(chosen));
      }),
      0,
    );
  }
  const all = places === undefined ? losses : scatterAdd(places, losses, b * t);
  return neg(reshape(all, [b, t]));
}
