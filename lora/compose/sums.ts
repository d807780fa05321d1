/**
 * Weighted sums of pairs of matrices, on the host in float64, as PEFT's add_weighted_adapter defines them.
 * Sources: Yadav et al. 2023, "TIES-Merging"; Yu et al. 2023, "Language Models are Super Mario" (DARE).
 */
import { Matrix } from "ml-matrix";
import { OptionError } from "../../core/errors.ts";
import { randomKey, threefry2x32, uniformAt } from "../../core/random.ts";
import { truncatedSvd } from "../methods/svd.ts";
import { type OptionNames } from "../../core/options.ts";

/** What is done to the arrays of several adapters before they are added. */
interface Rule {
  /** Which values are left of each: the largest, or some that are drawn, made larger by as much as is missing. */
  readonly keep?: "largest" | "drawn";
  /** At each place only what has the sign that most have is averaged. */
  readonly elect?: true;
}

const rules = {
  linear: {},
  ties: { keep: "largest", elect: true },
  dare_linear: { keep: "drawn" },
  dare_ties: { keep: "drawn", elect: true },
  magnitude_prune: { keep: "largest" },
} as const satisfies Record<string, Rule>;

/** A way to combine adapters, by PEFT's name: of their factors, or (`…svd`) of their changes. */
export type Way =
  | "cat"
  | "linear"
  | "svd"
  | "ties"
  | "ties_svd"
  | "dare_linear"
  | "dare_linear_svd"
  | "dare_ties"
  | "dare_ties_svd"
  | "magnitude_prune"
  | "magnitude_prune_svd";

/** All of them. */
export const ways: readonly Way[] = [
  ...["cat", "linear", "svd", "ties", "ties_svd", "dare_linear", "dare_linear_svd"] as const,
  ...["dare_ties", "dare_ties_svd", "magnitude_prune", "magnitude_prune_svd"] as const,
];

/** What some ways of combining need. */
export interface SumOptions {
  /** The fraction of values that is kept, of each adapter: for all but `cat`, `linear` and `svd`. */
  readonly density?: number;
  /** The sign that counts: of the sum (`total`, the default), or that more adapters have (`frequency`). For `ties` and `dare_ties`. */
  readonly majoritySignMethod?: "total" | "frequency";
  /** The rank of the result, for `svd` and its like; by default the largest there is. */
  readonly svdRank?: number;
  /** A quantile of the results' values, above which they are cut off in size, for `svd` and its like. */
  readonly svdClamp?: number;
  /** What `dare` draws by. 0 by default. */
  readonly seed?: number;
}

/** The names of {@link SumOptions}. */
export const sumNames: OptionNames<SumOptions> = {
  ...{ density: true, majoritySignMethod: true, svdRank: true, svdClamp: true, seed: true },
};

/** A change s·B·A of one module by one adapter: rows of A [r][in], columns of B [r][out]. */
export interface Factors {
  readonly A: readonly Float64Array[];
  readonly B: readonly Float64Array[];
}

/** One adapter's part. */
export interface Part extends Factors {
  /** The scaling times the weight. */
  readonly weight: number;
}

/** @throws {OptionError} for a way that is not known, or an option that it can't take */
export function checkSum(way: string, options: SumOptions): asserts way is Way {
  if (!(ways as readonly string[]).includes(way)) {
    throw new OptionError(`combine by ${JSON.stringify(way)} is not known: ${ways.join(", ")} are`);
  }
  const { keep, elect }: Rule = ruleOf(way as Way) ?? {};
  const { density, majoritySignMethod: sign, svdRank, svdClamp, seed } = options;
  const unused: readonly (readonly [string, unknown, boolean])[] = [
    ["density", density, keep !== undefined],
    ["majoritySignMethod", sign, elect === true],
    ["svdRank", svdRank, way.endsWith("svd")],
    ["svdClamp", svdClamp, way.endsWith("svd")],
    ["seed", seed, keep === "drawn"],
  ];
  const [idle] = unused.find(([, value, used]) => value !== undefined && !used) ?? [];
  if (idle !== undefined) throw new OptionError(`${idle} says nothing about combining by ${way}: leave it out`);
  const fraction = (x: unknown) => typeof x === "number" && x > 0 && x <= 1;
  if (keep !== undefined && !fraction(density)) {
    throw new OptionError(
      `combining by ${way} takes a density, the fraction of values that is kept: above 0 and at most 1, not ${density}`,
    );
  }
  if (sign !== undefined && sign !== "total" && sign !== "frequency") {
    throw new OptionError(`majoritySignMethod is ${JSON.stringify(sign)}; supported: "total", "frequency"`);
  }
  if (svdClamp !== undefined && !fraction(svdClamp)) {
    throw new OptionError(`svdClamp is a quantile, above 0 and at most 1, not ${svdClamp}`);
  }
  if (svdRank !== undefined && !(Number.isInteger(svdRank) && svdRank >= 1)) {
    throw new OptionError(`svdRank is a whole number from 1, not ${svdRank}`);
  }
}

function ruleOf(way: Way): Rule | undefined {
  return way === "svd" ? rules.linear : rules[way.replace(/_svd$/, "") as keyof typeof rules];
}

/**
 * The combination of one module's parts, with scaling 1.
 *
 * @param module its name, for errors and as what `dare` draws by
 * @param largest the greatest rank of any of the adapters
 * @throws {OptionError} for ranks that this way can't take
 */
export function weightedSum(
  module: string,
  parts: readonly Part[],
  way: Way,
  { largest, ...options }: SumOptions & { readonly largest: number },
): Factors {
  if (way === "cat") {
    return {
      A: parts.flatMap(({ A, weight }) => A.map((row) => row.map((x) => x * weight))),
      B: parts.flatMap(({ B }) => B),
    };
  }
  const draw = (which: string, i: number) => keyOf(options.seed ?? 0, `${module} ${which} ${i}`);
  const sum = (arrays: readonly Float64Array[], weights: readonly number[], which: string) =>
    added(arrays, weights, ruleOf(way)!, options, (i) => draw(which, i));
  const [inputs, outputs] = [parts[0].A[0].length, parts[0].B[0].length];
  if (way.endsWith("svd")) {
    const rank = options.svdRank ?? Math.min(largest, inputs, outputs);
    if (rank > Math.min(inputs, outputs)) {
      throw new OptionError(
        `svdRank is ${rank}, but "${module}" has ${inputs} inputs and ${outputs} outputs: it takes at most ` +
          `${Math.min(inputs, outputs)}`,
      );
    }
    if (way === "svd") return clamped(shortened(weightedSum(module, parts, "cat", { largest }), rank), options);
    const delta = sum(parts.map(changeOf), parts.map(() => 1), "delta");
    return clamped(principalPart(matrixOf(delta, inputs), rank), options);
  }
  refuseOtherRanks(module, parts.map(({ A }) => A.length), way);
  const roots = parts.map(({ weight }) => Math.sqrt(Math.abs(weight)));
  const signs = parts.map(({ weight }) => weight < 0 ? -1 : 1);
  return {
    A: rowsOf(sum(parts.map(({ A }) => joined(A)), roots.map((root, i) => root * signs[i]), "A"), inputs),
    B: rowsOf(sum(parts.map(({ B }) => joined(B)), roots, "B"), outputs),
  };
}

/** @throws {OptionError} for ranks that differ, where A is added to A */
export function refuseOtherRanks(module: string, [r, ...others]: readonly number[], way: Way): void {
  const other = others.find((other) => other !== r);
  if (other === undefined) return;
  throw new OptionError(
    `"${module}" has the ranks ${r} and ${other}: "${way}" adds A to A, which takes equal ranks; "cat" and "svd" take any`,
  );
}

/** A seed's key for a name, whatever else there is to draw. */
function keyOf(seed: number, name: string): readonly [number, number] {
  const [high, low] = randomKey(seed).data;
  return [...name].reduce((key, letter) => threefry2x32(key, [letter.codePointAt(0)!, 0]), [high, low]);
}

function joined(rows: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(rows.length * rows[0].length);
  rows.forEach((row, i) => all.set(row, i * row.length));
  return all;
}

/** An array as the rows of a matrix with so many columns. */
function rowsOf(array: Float64Array, columns: number): Float64Array[] {
  return Array.from({ length: array.length / columns }, (_, i) => array.subarray(i * columns, (i + 1) * columns));
}

function matrixOf(array: Float64Array, columns: number): Matrix {
  return Matrix.from1DArray(array.length / columns, columns, Array.from(array));
}

/** weight·B·A [out, in]. */
function changeOf({ A, B, weight }: Part): Float64Array {
  const inputs = A[0].length, outputs = B[0].length;
  const change = new Float64Array(outputs * inputs);
  A.forEach((row, k) => {
    for (let o = 0; o < outputs; o++) {
      const factor = weight * B[k][o];
      for (let i = 0; i < inputs; i++) change[o * inputs + i] += factor * row[i];
    }
  });
  return change;
}

/** The arrays after pruning, weighted and added; or, with signs elected, averaged. */
function added(
  arrays: readonly Float64Array[],
  weights: readonly number[],
  { keep, elect }: Rule,
  { density = 1, majoritySignMethod = "total" }: SumOptions,
  key: (i: number) => readonly [number, number],
): Float64Array {
  const kept = arrays.map((array, i) =>
    density >= 1 || keep === undefined
      ? array
      : keep === "largest"
      ? largestOf(array, Math.trunc(density * array.length))
      : drawnOf(array, density, key(i))
  );
  return kept[0].map((_, at) => {
    const values = kept.map((array) => array[at]);
    if (elect === undefined) return values.reduce((sum, x, i) => sum + weights[i] * x, 0);
    const votes = majoritySignMethod === "total" ? values : values.map(Math.sign);
    // Nothing and a tie count as positive; a value that was pruned agrees with neither.
    const sign = votes.reduce((a, b) => a + b, 0) >= 0 ? 1 : -1;
    const agreeing = values.flatMap((x, i) => Math.sign(x) === sign ? [weights[i] * x] : []);
    return agreeing.reduce((a, b) => a + b, 0) / Math.max(1, agreeing.length);
  });
}

/** The `count` values of the greatest size; the first of several that are equal. */
function largestOf(array: Float64Array, count: number): Float64Array {
  if (count === 0) return new Float64Array(array.length);
  const least = array.map(Math.abs).sort()[array.length - count];
  let equal = count - array.reduce((n, x) => n + (Math.abs(x) > least ? 1 : 0), 0);
  return array.map((x) => Math.abs(x) > least || (Math.abs(x) === least && equal-- > 0) ? x : 0);
}

function drawnOf(array: Float64Array, density: number, key: readonly [number, number]): Float64Array {
  return array.map((x, i) => uniformAt(key, i) < density ? x / density : 0);
}

/** The best change of a rank: B holds the singular values, as PEFT's. */
export function principalPart(change: Matrix, rank: number): Factors {
  const { U, s, V } = truncatedSvd(change, rank);
  return {
    A: s.map((_, k) => Float64Array.from(V.getColumn(k))),
    B: s.map((value, k) => Float64Array.from(U.getColumn(k), (x) => x * value)),
  };
}

/** The same of a product of two factors, which is not made: what differs from its own directions is a small matrix. */
function shortened({ A, B }: Factors, rank: number): Factors {
  if (A.length >= Math.min(A[0].length, B[0].length)) {
    return principalPart(matrixOf(changeOf({ A, B, weight: 1 }), A[0].length), rank);
  }
  const [across, down] = [directions(A), directions(B)];
  const core = new Matrix(A.length, A.length);
  for (let i = 0; i < A.length; i++) {
    for (let j = 0; j < A.length; j++) core.set(i, j, dot(down.parts[i], across.parts[j]));
  }
  const small = principalPart(core, Math.min(rank, A.length));
  const back = (rows: readonly Float64Array[], along: readonly Float64Array[]) =>
    Array.from({ length: rank }, (_, k) => {
      const row = new Float64Array(along[0].length);
      along.forEach((direction, j) => k < rows.length && addTo(row, direction, rows[k][j]));
      return row;
    });
  return { A: back(small.A, across.units), B: back(small.B, down.units) };
}

/** Orthogonal units of the space of some rows, and each unit's part in every row: row k = Σ parts[i][k]·units[i]. */
function directions(rows: readonly Float64Array[]): { units: Float64Array[]; parts: Float64Array[] } {
  const parts = rows.map(() => new Float64Array(rows.length));
  const units: Float64Array[] = [];
  rows.forEach((row, k) => {
    const rest = row.slice(), size = Math.sqrt(dot(row, row));
    // Twice is enough: what the first pass leaves of the others is rounding, which the second takes out.
    for (let pass = 0; pass < 2; pass++) {
      for (let i = 0; i < k; i++) {
        const along = dot(rest, units[i]);
        parts[i][k] += along;
        addTo(rest, units[i], -along);
      }
    }
    const length = Math.sqrt(dot(rest, rest));
    if (length > size * 1e-14) {
      parts[k][k] = length;
      for (let i = 0; i < rest.length; i++) rest[i] /= length;
    } else rest.fill(0);
    units.push(rest);
  });
  return { units, parts };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function addTo(sum: Float64Array, row: Float64Array, factor: number): void {
  for (let i = 0; i < sum.length; i++) sum[i] += factor * row[i];
}

/** Factors whose values of greatest size are cut off at a quantile of all values. */
function clamped({ A, B }: Factors, { svdClamp }: SumOptions): Factors {
  if (svdClamp === undefined) return { A, B };
  const all = Float64Array.from([...A, ...B].flatMap((row) => [...row])).sort();
  const at = svdClamp * (all.length - 1), below = Math.floor(at);
  const most = all[below] + (at - below) * ((all[below + 1] ?? all[below]) - all[below]);
  const cut = (rows: readonly Float64Array[]) => rows.map((row) => row.map((x) => Math.min(most, Math.max(-most, x))));
  return { A: cut(A), B: cut(B) };
}
