/** Cross-entropies: of next-token logits, of a text's labels. One row kernel forward, one backward. */
import { formatAval, sameShape } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { defineComposite } from "../ir/composite.ts";
import { bind, bind1, type Primitive, type Value } from "../ir/graph.ts";
import { broadcastTo, full, reduceSum, reshape } from "../ops/broadcast.ts";
import { asValue } from "../ops/constant.ts";
import { convert, div, eq, exp, log, max, mul, ne, select, sub } from "../ops/elementwise.ts";
import { gather } from "../ops/indexing.ts";
import { reduceMax } from "../ops/reduce.ts";
import { concat, iota, slice } from "../ops/structure.ts";
import type { Operand } from "../tensor.ts";
import type { Scalar } from "../tree_types.ts";
import { sumOver } from "../transforms/sum_over.ts";
import { rowWise } from "./row_chunks.ts";

/** The label of a token that is not to be predicted, as in PyTorch and transformers. */
export const ignoredLabel: -100 = -100;

/** A value per row as a column [N,1], and stretched over the row [N,V]. */
const column = (x: Value) => reshape(x, [...x.shape, 1]);
const alongRow = (x: Value, shape: readonly number[]) => broadcastTo(column(x), shape);

/** Which column of each row is its label's. */
const isLabel = (shape: readonly number[], labels: Value) => eq(iota(shape, 1), alongRow(labels, shape));

/** The parts of a row's loss: its logits below the highest, their exponentials, the sum of these, and the label's. */
function lossParts(logits: Value, labels: Value) {
  const shifted = sub(logits, reduceMax(logits, -1, { keep: true }));
  const powers = exp(shifted);
  const total = reduceSum(powers, -1, { keep: true });
  const picked = reduceSum(select(isLabel(logits.shape, labels), shifted, 0), -1);
  const loss = select(eq(labels, ignoredLabel), 0, sub(reshape(log(total), labels.shape), picked));
  return { loss, powers, total };
}

/** The loss and, in the same pass over the row, its derivative by the logits: what the gradient saves in their place. */
const crossEntropyWithGradPrim = defineComposite<null>({
  name: "crossEntropyWithGrad",
  define: ([logits, labels]) => {
    const { shape } = logits, { loss, powers, total } = lossParts(logits, labels);
    const onehot = select(isLabel(shape, labels), full(shape, 1), 0);
    const counts = convert(ne(labels, ignoredLabel), "f32");
    return [loss, mul(sub(div(powers, total), onehot), alongRow(counts, shape))];
  },
  lowering: { kind: "row" },
});

const crossEntropyPrim: Primitive<null> = {
  ...defineComposite<null>({
    name: "crossEntropy",
    define: ([logits, labels]) => [lossParts(logits, labels).loss],
    lowering: { kind: "row" },
  }),
  linearize: (inputs) => {
    const [loss, slope] = bind(crossEntropyWithGradPrim, inputs, null);
    return { outs: [loss], pullback: ([ct]) => [ct && mul(slope, alongRow(ct, slope.shape)), null] };
  },
};

/**
 * -log softmax(logits)[label] per row: logits f32[N,V], labels i32[N], to f32[N]; 0 where the label is -100.
 *
 * @throws {ShapeError} when the sizes do not fit
 */
export function crossEntropyRows(logits: Operand, labels: Operand): Value {
  const [x, y] = [asValue(logits), asValue(labels, "i32")];
  if (x.shape.length !== 2 || !sameShape(y.shape, [x.shape[0]]) || y.dtype !== "i32") {
    throw new ShapeError(
      `Cannot take the cross-entropy of ${formatAval(x.aval)} and labels ${formatAval(y.aval)}: ` +
        `they are f32[N,V] and i32[N]`,
    );
  }
  return bind1(crossEntropyPrim, [x, y], null);
}

/** What each place of [B,T] is to predict: the label of the next one, and nothing at the end of a sequence. */
export function nextLabels(labels: Operand): Value {
  const value = asValue(labels, "i32");
  const [b, t] = value.shape;
  const last = Math.min(t, 1);
  return concat([slice(value, 1, last, t), full([b, last], ignoredLabel, "i32")], 1);
}

/** f32[]: how many tokens of labels i32[B,T] {@link causalLoss} predicts. */
export function labelledTokens(labels: Operand): Scalar {
  return reduceSum(convert(ne(nextLabels(labels), ignoredLabel), "f32"));
}

/** How the losses of tokens become one number. */
export interface CausalLossOptions {
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

/** The most logits that are made at a time. */
const maxLogits = 2 ** 23;

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
  const [x, y] = [asValue(logits), asValue(labels, "i32")];
  if (x.shape.length !== 3 || !sameShape(x.shape.slice(0, 2), y.shape)) {
    throw new ShapeError(
      `Cannot take the loss of logits ${formatAval(x.aval)} and labels ${formatAval(y.aval)}: ` +
        `they are f32[B,T,V] and i32[B,T]`,
    );
  }
  const sum = sumOfRows(x, nextLabels(y), options);
  const { reduction = "mean" } = options;
  if (reduction === "sum") return sum;
  return div(sum, reduction === "mean" ? max(labelledTokens(y), 1) : reduction as Scalar);
}

/**
 * The loss of classifying each text: logits f32[B,labels], labels i32[B] (-100 where a text has none), to f32[]: the
 * mean over the labelled rows, or what `reduction` says. Where no row is labelled the mean is 0, not NaN.
 *
 * @throws {ShapeError} when the sizes do not fit
 */
export function classificationLoss(
  logits: Operand,
  labels: Operand,
  { reduction = "mean" }: Pick<CausalLossOptions, "reduction"> = {},
): Scalar {
  const y = asValue(labels, "i32");
  const sum = reduceSum(crossEntropyRows(logits, y));
  if (reduction === "sum") return sum;
  return div(sum, reduction === "mean" ? max(reduceSum(convert(ne(y, ignoredLabel), "f32")), 1) : reduction as Scalar);
}

/** The cross-entropies of logits [B,T,V] and labels [B,T] added up, in chunks of rows where that saves memory. */
function sumOfRows(logits: Value, labels: Value, { chunk, places }: CausalLossOptions): Scalar {
  const [b, t, v] = logits.shape;
  const at = (rows: Value) => places === undefined ? rows : gather(rows, places);
  const chosen = at(reshape(labels, [b * t]));
  const rows = rowWise(logits);
  if (rows === null) return reduceSum(crossEntropyRows(at(reshape(logits, [b * t, v])), chosen));
  const body = (xs: { sources: Value[]; labels: Value }) =>
    reduceSum(crossEntropyRows(rows.build(xs.sources), xs.labels));
  const size = chunk ?? Math.max(64, Math.floor(maxLogits / v / 64) * 64);
  return sumOver(body, { sources: rows.sources.map(at), labels: chosen }, null, {
    chunk: Math.min(size, chosen.shape[0]),
  })[0] as Scalar;
}
