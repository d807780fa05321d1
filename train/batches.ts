/** Which examples go into which batch: shuffled by the seed, grouped by length or packed, and resumable at any step. */
import { DataError } from "../core/errors.ts";
import { type Batch, type Example, makeBatch, packBatch } from "./data.ts";
import type { Examples } from "./data_set.ts";
import { rngFrom, shuffledIndices } from "./rng.ts";

/** How examples become batches. */
export interface BatchPlan {
  /** Rows of a batch. */
  readonly batch: number;
  /** Batches of a step. */
  readonly accumulate: number;
  readonly seed: number;
  readonly padId: number;
  /** The lengths, rising, that batches may have; each is one program. The last is the most that an example may have. */
  readonly lengths: readonly number[];
  /** Put several examples into a row, of the last of the lengths. */
  readonly pack: boolean;
}

/** Where batches go on, as JSON: a place in the order of rows, and what was taken from there but not used yet. */
export interface Cursor {
  /** Rows taken since the run began. */
  readonly position: number;
  /** Batches already used of those that are made from `position` on. */
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
export const startCursor: Cursor = { position: 0, used: 0, open: [] };

/** Batches from a cursor on: the same ones that a run from the beginning would have had there. */
export function makeBatcher(examples: Examples, plan: BatchPlan, cursor: Cursor = startCursor): Batcher {
  return plan.pack ? packer(examples, plan, cursor) : grouper(examples, plan, cursor);
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

/** Takes usable examples in order. */
function taker(examples: Examples, seed: number, position: number) {
  const order = rowOrder(examples.length, seed);
  return {
    position: () => position,
    take(): { index: number; example: Example } {
      for (let tried = 0; tried < examples.length; tried++) {
        const index = order(position++);
        const example = examples.at(index);
        if (example !== undefined) return { index, example };
      }
      throw new DataError(`none of the ${examples.length} rows can be used: all were left out as bad.`);
    },
  };
}

// With several lengths, rows are sorted by length within windows of this many steps.
const windowSteps = 16;

/**
 * Every batch is padded to the least length that fits its longest example. With several lengths, the rows of a window go to
 * the least length that fits, so that a batch's rows are of like length; the batches of a window are shuffled.
 */
function grouper(examples: Examples, { batch, accumulate, seed, padId, lengths }: BatchPlan, cursor: Cursor): Batcher {
  const taken = taker(examples, seed, cursor.position);
  const steps = lengths.length > 1 ? windowSteps : 1;
  let start = cursor.position;
  let used = 0;
  let window: Example[][] = [];

  const fill = () => {
    start = taken.position();
    used = 0;
    const rows = Array.from({ length: steps * batch * accumulate }, () => taken.take().example);
    const batches: Example[][] = [];
    const waiting: Example[] = [];
    for (const [i, length] of lengths.entries()) {
      const least = i === 0 ? -1 : lengths[i - 1];
      // What does not fill a batch of its own length goes with the next longer ones.
      waiting.push(
        ...rows.filter(({ ids }) => ids.length > least && (ids.length <= length || i === lengths.length - 1)),
      );
      while (waiting.length >= batch) batches.push(waiting.splice(0, batch));
    }
    const order = steps > 1 ? shuffledIndices(batches.length, rngFrom(seed, start, 1)) : batches.map((_, i) => i);
    window = order.map((i) => batches[i]);
  };
  const next = () => {
    if (used === window.length) fill();
    const step = window.slice(used, used + accumulate);
    used += accumulate;
    return step;
  };
  while (used < cursor.used) next();
  return {
    next: () =>
      next().map((rows) => {
        const longest = Math.max(...rows.map(({ ids }) => ids.length));
        return makeBatch(rows, { padId, seq: lengths.find((length) => length >= longest) ?? lengths.at(-1)! });
      }),
    cursor: () =>
      used === window.length ? { ...startCursor, position: taken.position() } : { position: start, used, open: [] },
  };
}

// Packs that are filled at the same time: more of them waste less, and mix what was shuffled less.
const openPacks = 32;

/** Best fit: an example goes into the fullest pack that has room; the fullest of all leaves when a new one is needed. */
function packer(examples: Examples, { batch, accumulate, seed, padId, lengths }: BatchPlan, cursor: Cursor): Batcher {
  interface Pack {
    readonly indices: number[];
    readonly documents: Example[];
    size: number;
  }
  const seq = lengths.at(-1)!;
  const taken = taker(examples, seed, cursor.position);
  let open: Pack[] = cursor.open.map((indices) => {
    const documents = indices.map((index) => examples.at(index)!);
    return { indices: [...indices], documents, size: documents.reduce((sum, { ids }) => sum + ids.length, 0) };
  });
  const close = (pack: Pack) => {
    open = open.filter((other) => other !== pack);
    return pack.documents;
  };
  const fullest = (packs: readonly Pack[]) =>
    packs.reduce(
      (best: Pack | undefined, pack) => best === undefined || pack.size > best.size ? pack : best,
      undefined,
    );

  const nextPack = (): Example[] => {
    while (true) {
      const { index, example } = taken.take();
      if (example.label !== undefined) {
        throw new DataError("rows with a label can't share a row, which has one class: leave pack out.");
      }
      const size = example.ids.length;
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
  return {
    next: () =>
      Array.from(
        { length: accumulate },
        () => packBatch(Array.from({ length: batch }, nextPack), { padId, seq }),
      ),
    cursor: () => ({ position: taken.position(), used: 0, open: open.map(({ indices }) => [...indices]) }),
  };
}

/** The most examples whose lengths are looked at where each has to be read and tokenised for it. */
const mostSampled = 512;

/**
 * At most `count` lengths, multiples of 16, so that padding every example to the least one that fits pads as little as
 * possible. `most` is the longest that a batch may have. Of streamed examples a sample is looked at, and `most` is always
 * one of the lengths.
 */
export function chooseLengths(examples: Examples, count: number, most: number): number[] {
  const every = examples.streamed ? Math.max(1, Math.ceil(examples.length / mostSampled)) : 1;
  const counts = new Map<number, number>();
  for (let i = 0; i < examples.length; i += every) {
    const size = examples.at(i)?.ids.length;
    if (size === undefined) continue;
    const rounded = Math.min(most, Math.ceil(size / 16) * 16);
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

/** The steps of `epochs` rounds over the data. For packs, a round is packed once to count them. */
export function countSteps(examples: Examples, plan: BatchPlan, epochs: number): number {
  const rows = epochs * examples.length;
  if (!plan.pack) return Math.max(1, Math.ceil(rows / (plan.batch * plan.accumulate)));
  const batcher = makeBatcher(examples, plan);
  let steps = 0;
  while (batcher.cursor().position < examples.length) {
    batcher.next();
    steps++;
  }
  return Math.max(1, Math.ceil(steps * rows / batcher.cursor().position));
}

/** What decides the lengths of batches. */
export interface LengthOptions {
  /** The most tokens of a row. */
  readonly seq?: number;
  readonly context: number;
  readonly buckets: number;
  readonly pack: boolean;
}

// Where nothing is said, packs are at least this long: short ones would waste their ends.
const packTokens = 1024;

/** The lengths of batches: one, or where rows are grouped several, the last of them the longest that a row may be. */
export function planLengths(data: Examples, { seq, context, buckets, pack }: LengthOptions): number[] {
  if (seq !== undefined && (pack || buckets === 1)) return [seq];
  const lengths = chooseLengths(data, pack ? 1 : buckets, seq ?? context);
  return pack ? [Math.max(lengths.at(-1)!, Math.min(context, packTokens))] : lengths;
}
