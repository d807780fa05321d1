/** Which examples go into which batch: shuffled by the seed, grouped by length or packed, and resumable at any step. */
import { DataError } from "../core/errors.ts";
import type { Batch, BatchSize, Example } from "./examples.ts";
import type { Examples } from "./data_set.ts";
import { rngFrom, shuffledIndices } from "./rng.ts";

/** How examples become a batch: what making batches needs to know of an objective. */
export interface Collator {
  /** The tokens of an example's longest sequence. */
  lengthOf(example: Example): number;
  /** A batch of one example a row. */
  collate(examples: readonly Example[], size: BatchSize): Batch;
  /** A batch of several examples a row, where those can share one: */
  pack?(packs: readonly (readonly Example[])[], size: BatchSize): Batch;
  /** the sentence that says why they can't, and what to do. */
  readonly notPacked?: string;
  /** Why a batch is not the sum of smaller ones, where it isn't (a loss that compares its rows), and what to do. */
  readonly notAccumulated?: string;
}

/** How examples become batches. */
export interface BatchPlan {
  readonly objective: Collator;
  /** Rows of a batch. */
  readonly batch: number;
  /** Batches of a step; the last step of an epoch may have fewer. */
  readonly accumulate: number;
  readonly seed: number;
  readonly padId: number;
  /** The lengths, rising, that batches may have; each is one program. The last is the most that an example may have. */
  readonly lengths: readonly number[];
  /** Put several examples into a row, of the last of the lengths. */
  readonly pack: boolean;
}

/** Where batches continue, as JSON: a position in the order of rows, and rows that were taken but not used yet. */
export interface Cursor {
  /** Rows taken since the run began. */
  readonly position: number;
  /** Steps already used of those that are made from `position` on. */
  readonly used: number;
  /** The rows of packs that are not full yet. */
  readonly open: readonly (readonly number[])[];
}

/** Batches without end. */
export interface Batcher {
  /** The next step's batches. */
  next(): Batch[];
  /** Where the next step's batches come from; only between two steps. */
  cursor(): Cursor;
}

/** The beginning of the data. */
const startCursor: Cursor = { position: 0, used: 0, open: [] };

/**
 * Batches from a cursor on: the same ones that a run from the beginning would have had there. Every epoch has every example
 * once: its last step has what is left, and rows that no example fills are padding. Which examples share a step depends on
 * `batch · accumulate` alone.
 */
export function makeBatcher(examples: Examples, plan: BatchPlan, cursor: Cursor = startCursor): Batcher {
  const { objective, padId, lengths } = plan;
  const batch = heightOf(examples, plan);
  const steps = makeSteps(examples, plan, cursor);
  const pad = (documents: readonly (readonly Example[])[], draw: number): Batch => {
    if (plan.pack) return objective.pack!(documents, { padId, seq: lengths.at(-1)!, rows: batch });
    const rows = documents.flat();
    const longest = Math.max(...rows.map(objective.lengthOf));
    const seq = lengths.find((length) => length >= longest) ?? lengths.at(-1)!;
    return objective.collate(rows, { padId, seq, rows: batch, draw });
  };
  const next = () => {
    const { position, used } = steps.cursor();
    return slices(steps.next(), batch).map((rows) => pad(rows, position * (windowSteps + 1) + used));
  };
  return { next, cursor: steps.cursor };
}

/** The rows of every batch: as many as are asked for, or as there are. */
export function heightOf({ length }: Pick<Examples, "length">, { batch }: Pick<BatchPlan, "batch">): number {
  return Math.min(batch, length);
}

/** The steps of a run, each as rows of the examples that share one. */
interface Steps {
  next(): (readonly Example[])[];
  cursor(): Cursor;
}

/**
 * Holds the options of batches against the objective.
 *
 * @throws {DataError} for those that its examples don't allow
 */
export function checkBatching(
  { pack, notPacked, notAccumulated }: Pick<Collator, "pack" | "notPacked" | "notAccumulated">,
  plan: Pick<BatchPlan, "pack" | "accumulate">,
): void {
  if (plan.pack && !pack) throw new DataError(notPacked ?? "these rows can't share a row of a batch: leave pack out.");
  if (plan.accumulate > 1 && notAccumulated !== undefined) throw new DataError(notAccumulated);
}

function makeSteps(examples: Examples, plan: BatchPlan, cursor: Cursor = startCursor): Steps {
  checkBatching(plan.objective, plan);
  return plan.pack ? packer(examples, plan, cursor) : grouper(examples, plan, cursor);
}

function slices<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
}

/**
 * The order in which training sees `count` examples: a function from a position, counted on across epochs, to an index. Every
 * epoch is a new shuffle, which depends on the seed and the epoch alone.
 */
export function rowOrder(count: number, seed: number): (position: number) => number {
  let epoch = -1;
  let order: readonly number[] = [];
  return (position) => {
    const wanted = Math.floor(position / count);
    if (wanted !== epoch) {
      epoch = wanted;
      order = shuffledIndices(count, rngFrom(seed, epoch));
    }
    return order[position % count];
  };
}

/** Takes usable examples in order, and says where an epoch ends. */
function taker(examples: Examples, seed: number, position: number) {
  const { length } = examples;
  if (length === 0) throw new DataError("there are no rows to learn from: give at least one");
  const order = rowOrder(length, seed);
  let unusable = 0;
  let end = position;
  return {
    position: () => position,
    /** Goes on to the next epoch where one has just ended. */
    begin() {
      if (position < end) return;
      end = (Math.floor(position / length) + 1) * length;
      unusable = 0;
    },
    /** The next of this epoch; null at its end. */
    take(): { index: number; example: Example } | null {
      while (position < end) {
        const index = order(position++);
        const example = examples.at(index);
        if (example !== undefined) return { index, example };
        if (++unusable === length) {
          throw new DataError(`none of the ${length} rows can be used: all were skipped as bad.`);
        }
      }
      return null;
    },
  };
}

// With several lengths, rows are sorted by length within windows of this many steps.
const windowSteps = 16;

/**
 * Steps of one example a row. With several lengths, the rows of a window are sorted by the least length that fits, so that
 * those of a step are of like length, and its steps are shuffled. What fills no step at an epoch's end is its last one.
 */
function grouper(
  examples: Examples,
  { objective, batch, accumulate, seed, lengths }: BatchPlan,
  cursor: Cursor,
): Steps {
  const taken = taker(examples, seed, cursor.position);
  const size = batch * accumulate;
  const most = lengths.length > 1 ? windowSteps * size : size;
  const classOf = (example: Example) => {
    const found = lengths.findIndex((length) => objective.lengthOf(example) <= length);
    return found < 0 ? lengths.length : found;
  };
  let start = cursor.position;
  let used = 0;
  let window: Example[][] = [];

  const fill = () => {
    start = taken.position();
    used = 0;
    const rows: Example[] = [];
    while (rows.length === 0) {
      taken.begin();
      for (let found; rows.length < most && (found = taken.take()) !== null;) rows.push(found.example);
    }
    const whole = rows.length - rows.length % size;
    const steps = slices(rows.slice(0, whole).sort((a, b) => classOf(a) - classOf(b)), size);
    const order = lengths.length > 1 ? shuffledIndices(steps.length, rngFrom(seed, start, 1)) : steps.keys();
    window = [...order].map((i) => steps[i]);
    if (whole < rows.length) window.push(rows.slice(whole).sort((a, b) => classOf(a) - classOf(b)));
  };
  const next = () => {
    if (used === window.length) fill();
    return window[used++];
  };
  while (used < cursor.used) next();
  return {
    next: () => next().map((example) => [example]),
    cursor: () =>
      used === window.length ? { ...startCursor, position: taken.position() } : { position: start, used, open: [] },
  };
}

// Packs that are filled at the same time: more of them waste less, and mix what was shuffled less.
const openPacks = 32;

/**
 * Best fit: an example goes into the fullest pack that has room; the fullest of all leaves when a new one is needed, and all
 * of them at an epoch's end.
 */
function packer(examples: Examples, { objective, batch, accumulate, seed, lengths }: BatchPlan, cursor: Cursor): Steps {
  interface Pack {
    readonly indices: number[];
    readonly documents: Example[];
    size: number;
  }
  const seq = lengths.at(-1)!;
  const taken = taker(examples, seed, cursor.position);
  let open: Pack[] = cursor.open.map((indices) => {
    const documents = indices.map((index) => examples.at(index)!);
    return {
      indices: [...indices],
      documents,
      size: documents.reduce((sum, document) => sum + objective.lengthOf(document), 0),
    };
  });
  // Between two epochs nothing is open.
  if (cursor.position % examples.length > 0) taken.begin();
  const close = (pack: Pack) => {
    open = open.filter((other) => other !== pack);
    return pack.documents;
  };
  const fullest = (packs: readonly Pack[]) =>
    packs.reduce(
      (best: Pack | undefined, pack) => best === undefined || pack.size > best.size ? pack : best,
      undefined,
    );

  /** The next pack of this epoch; null at its end. */
  const nextPack = (): Example[] | null => {
    while (true) {
      const found = taken.take();
      if (found === null) return open.length === 0 ? null : close(fullest(open)!);
      const { index, example } = found;
      const size = objective.lengthOf(example);
      let pack = fullest(open.filter((pack) => pack.size + size <= seq));
      let full: Example[] | null = null;
      if (pack === undefined) {
        if (open.length === openPacks) full = close(fullest(open)!);
        open.push(pack = { indices: [], documents: [], size: 0 });
      }
      pack.indices.push(index);
      pack.documents.push(example);
      pack.size += size;
      if (full !== null) return full;
      if (pack.size >= seq) return close(pack);
    }
  };
  const next = () => {
    const packs: Example[][] = [];
    while (packs.length === 0) {
      if (open.length === 0) taken.begin();
      for (let pack; packs.length < batch * accumulate && (pack = nextPack()) !== null;) packs.push(pack);
    }
    return packs;
  };
  return {
    next,
    cursor: () => ({ position: taken.position(), used: 0, open: open.map(({ indices }) => [...indices]) }),
  };
}

/** The most examples whose lengths are looked at where each has to be read and tokenised for it. */
const maxSampled = 512;

/**
 * At most `count` lengths, multiples of 16, so that padding every example to the least one that fits pads as little as
 * possible. `most` is the longest that a batch may have. Of streamed examples a sample is looked at, and `most` is always
 * one of the lengths.
 */
export function chooseLengths(
  examples: Examples,
  count: number,
  most: number,
  lengthOf: Collator["lengthOf"] = ({ ids }) => ids.length,
): number[] {
  const every = examples.streamed ? Math.max(1, Math.ceil(examples.length / maxSampled)) : 1;
  const counts = new Map<number, number>();
  for (let i = 0; i < examples.length; i += every) {
    const example = examples.at(i);
    if (example === undefined) continue;
    const rounded = Math.min(most, Math.ceil(lengthOf(example) / 16) * 16);
    counts.set(rounded, (counts.get(rounded) ?? 0) + 1);
  }
  if (examples.streamed && most < Infinity) counts.set(most, counts.get(most) ?? 0);
  const sizes = [...counts.keys()].sort((a, b) => a - b);
  // least[k][i]: the least padded tokens of all examples up to sizes[i], in k + 1 lengths of which sizes[i] is the last.
  const before = sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + counts.get(size)!, 0));
  const within = (from: number, to: number) => sizes[to] * (before[to] + counts.get(sizes[to])! - before[from]);
  let least = sizes.map((_, i) => ({ cost: within(0, i), lengths: [sizes[i]] }));
  for (let k = 1; k < Math.min(count, sizes.length); k++) {
    least = sizes.map((size, i) => {
      let best = least[i];
      for (let j = 0; j < i; j++) {
        const cost = least[j].cost + within(j + 1, i);
        if (cost < best.cost) best = { cost, lengths: [...least[j].lengths, size] };
      }
      return best;
    });
  }
  return least.at(-1)?.lengths ?? [];
}

/** The steps of `epochs` rounds over the data. Of packs they are counted by packing, by the lengths of the rows. */
export function countSteps(examples: Examples, plan: BatchPlan, epochs: number): number {
  const rounds = Math.ceil(epochs);
  const inOne = () => Math.ceil(examples.length / (plan.batch * plan.accumulate));
  const counts = plan.pack ? packedSteps(examples, plan, rounds) : Array.from({ length: rounds }, inOne);
  const last = counts.pop() ?? 0;
  return counts.reduce((sum, count) => sum + count, 0) + Math.max(1, Math.ceil(last * (epochs - rounds + 1)));
}

/** The steps of each of the first epochs of packs. */
function packedSteps(examples: Examples, plan: BatchPlan, epochs: number): number[] {
  const rows = Array.from({ length: examples.length }, (_, i) => {
    const row = examples.at(i);
    return row && { ids: Array<number>(plan.objective.lengthOf(row)), labels: [] };
  });
  const objective: Collator = { ...plan.objective, lengthOf: ({ ids }) => ids.length };
  const steps = makeSteps(rows as unknown as Examples, { ...plan, objective });
  return Array.from({ length: epochs }, (_, epoch) => {
    for (let count = 1;; count++) {
      steps.next();
      const { position, open } = steps.cursor();
      if (position === (epoch + 1) * rows.length && open.length === 0) return count;
    }
  });
}

/** What decides the lengths of batches. */
export interface LengthOptions {
  readonly objective: Pick<Collator, "lengthOf">;
  /** The most tokens of a row. */
  readonly seq?: number;
  readonly context: number;
  readonly buckets: number;
  readonly pack: boolean;
}

// By default, packs are at least this long: short ones would waste their ends.
const packTokens = 1024;

/** The lengths of batches: one, or where rows are grouped several, the last of them the longest that a row may be. */
export function planLengths(data: Examples, { objective, seq, context, buckets, pack }: LengthOptions): number[] {
  if (seq !== undefined && (pack || buckets === 1)) return [seq];
  const lengths = chooseLengths(data, pack ? 1 : buckets, seq ?? context, objective.lengthOf);
  return pack ? [Math.max(lengths.at(-1)!, Math.min(context, packTokens))] : lengths;
}
