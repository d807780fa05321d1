/**
 * EVA: LoRA whose A starts as the main directions of what flows into each module, and whose ranks go where data says most.
 * Source: Paischer et al. 2024, "One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation".
 */
import { OptionError } from "../../core/errors.ts";
import type { SeenInputs } from "../follow/inputs.ts";
import { Matrix } from "ml-matrix";
import { truncatedSvd } from "./svd.ts";

/** How EVA looks at data, in PEFT's words. */
export interface EvaOptions {
  /** A module gets at most rho times its rank; 1 leaves all ranks as they are. Default 2. */
  readonly rho?: number;
  /** The cosine from which on a direction counts as found. Default 0.99. */
  readonly tau?: number;
  /** Divide each direction by the root of its singular value. Default false. */
  readonly whiten?: boolean;
  /** Scale alpha with the rank that a module gets, so that its scaling stays. Default true. */
  readonly adjustScalingFactors?: boolean;
}

/**
 * The main directions of data that comes in batches: each is put below those found before.
 * Source: Ross, Lim, Lin and Yang 2008, "Incremental Learning for Robust Visual Tracking", as scikit-learn and PEFT have it.
 */
class Directions {
  components: Matrix | null = null;
  singular: readonly number[] = [];
  /** The share of all variance that each explains. */
  explained: readonly number[] = [];
  converged: readonly boolean[];
  #mean: Float64Array | null = null;
  /** Σ (x - mean)² of each input over all rows. */
  #spread = 0;
  #seen = 0;

  constructor(readonly count: number, readonly tau: number) {
    this.converged = Array.from({ length: count }, () => false);
  }

  /** Looks at more rows; too few say nothing. */
  add({ rows, width, data }: SeenInputs): void {
    if (rows < this.count) return;
    const mean = new Float64Array(width);
    data.forEach((x, i) => mean[i % width] += x / rows);
    const before = this.#mean, seen = this.#seen, all = seen + rows;
    let spread = 0;
    const centred = Array.from({ length: rows }, (_, row) => {
      const own = Array.from(data.subarray(row * width, (row + 1) * width), (x, i) => x - mean[i]);
      for (const x of own) spread += x * x;
      return own;
    });
    const apart = before?.map((x, i) => x - mean[i]);
    if (apart) spread += seen * rows / all * apart.reduce((sum, x) => sum + x * x, 0);
    this.#spread += spread;
    this.#mean = before === null ? mean : mean.map((x, i) => (before[i] * seen + x * rows) / all);
    this.#seen = all;
    const old = this.components;
    const above = old === null ? [] : old.to2DArray().map((row, k) => row.map((x) => x * this.singular[k]));
    const shift = apart === undefined ? [] : [Array.from(apart, (x) => Math.sqrt(seen / all * rows) * x)];
    const { s, V } = truncatedSvd(new Matrix([...above, ...centred, ...shift]), this.count);
    this.components = V.transpose();
    this.singular = s;
    this.explained = s.map((x) => x * x / this.#spread);
    for (let k = 0; k < this.count; k++) turned(this.components, k);
    if (old === null) return;
    this.converged = s.map((_, k) => {
      const [a, b] = [old, this.components!].map((m) => m.getRow(k));
      return a.reduce((sum, x, i) => sum + x * b[i], 0) >= this.tau;
    });
  }
}

/** Turns a row so that its largest number is positive. */
function turned(m: Matrix, row: number): void {
  const values = m.getRow(row), most = values.reduce((a, b) => Math.abs(b) > Math.abs(a) ? b : a);
  if (most < 0) m.setRow(row, values.map((x) => -x));
}

/** What EVA found for a module: the rank that it gets, and A's rows. */
export interface Found {
  readonly rank: number;
  readonly A: Float32Array;
}

/** A module as EVA looks at it. */
interface Looked {
  readonly rank: number;
  /** The module whose inputs are the same. */
  readonly as: number;
}

/** Ranks by what each direction of any module explains, the most first; modules of equal inputs in order. */
function ranksOf(modules: readonly Looked[], of: ReadonlyMap<number, Directions>): number[] {
  const budget = modules.reduce((sum, m) => sum + m.rank, 0);
  const own = [...modules.keys()].filter((i) => modules[i].as === i);
  const order = [...own, ...[...modules.keys()].filter((i) => modules[i].as !== i)];
  const all = order.flatMap((i) => of.get(modules[i].as)!.explained.map((share) => ({ i, share })));
  all.sort((a, b) => b.share - a.share);
  const counts = modules.map(() => 0);
  for (const { i } of all.slice(0, budget)) counts[i]++;
  for (const [i, { as }] of modules.entries()) {
    if (as !== i && counts[as] < counts[i]) [counts[as], counts[i]] = [counts[i], counts[as]];
  }
  return counts;
}

const sameData = (a: SeenInputs, b: SeenInputs) => a.width === b.width && a.data.every((x, i) => x === b.data[i]);

/**
 * Looks at batches, again from the first where they end, until the directions that count are found.
 *
 * @param ranks of the modules, as the options say
 * @throws {OptionError} where they are not found
 */
export async function principalDirections<I>(
  ranks: readonly number[],
  data: readonly I[],
  seen: (batch: I) => Promise<readonly SeenInputs[]>,
  { rho = 2, tau = 0.99, whiten = false }: EvaOptions,
): Promise<Found[]> {
  if (!(rho >= 1)) throw new OptionError(`rho is ${rho}: give a number of at least 1`);
  if (!(tau >= 0 && tau <= 1)) throw new OptionError(`tau is ${tau}: give a number from 0 to 1`);
  const first = await seen(data[0]);
  const modules = ranks.map((rank, i): Looked => ({
    rank,
    as: first.findIndex((x, j) => j === i || sameData(x, first[i])),
  }));
  const most = modules.map(({ as }, i) => {
    const alike = modules.flatMap((m, j) => m.as === as ? [Math.round(ranks[j] * rho)] : []);
    return Math.min(Math.max(...alike), first[i].width);
  });
  const of = new Map(
    [...modules.keys()].filter((i) => modules[i].as === i).map((i) => [i, new Directions(most[i], tau)]),
  );
  let given = most;
  const done = new Set<number>();
  for (let turn = 0; turn < 100 * data.length; turn++) {
    for (const [i, { converged }] of of) {
      if (converged.slice(0, given[i]).every((x) => x)) done.add(i);
      else done.delete(i);
    }
    if (done.size === of.size) {
      return modules.map(({ as }, i) => {
        const { components, singular } = of.get(as)!, rank = given[i];
        const rows = components!.to2DArray().slice(0, rank);
        return {
          rank,
          A: Float32Array.from(rows.flatMap((row, k) => whiten ? row.map((x) => x / Math.sqrt(singular[k])) : row)),
        };
      });
    }
    const now = await seen(data[turn % data.length]);
    for (const [i, directions] of of) if (!done.has(i)) directions.add(now[i]);
    if ([...of.values()].every(({ components }) => components !== null)) given = ranksOf(modules, of);
  }
  throw new OptionError(
    "EVA found no stable directions in a hundred turns of the data: give more of it (batches of more tokens than rho·r), or a lower tau",
  );
}
