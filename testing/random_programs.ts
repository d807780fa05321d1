/**
 * Random programs as plain data, drawn by fast-check's own arbitraries so that a failure shrinks to the few steps that
 * matter. Their floats are small whole numbers, which f32 computes exactly, so every device must give the very numbers that
 * the oracle gives op by op; what rounds (norms, softmax, attention) only decides, at a distance from its threshold.
 */
import fc from "fast-check";
import { sizeOf } from "../core/aval.ts";
import { type DType, fromBf16, fromF16, hostArray, isFloat, toBf16, toF16 } from "../core/dtype.ts";
import type { Value } from "../core/ir/graph.ts";
import type { HostTensor } from "../core/tensor.ts";
import { type OracleTensor, runOracle } from "./oracle.ts";
import { Draws, roundedSlopes, steps } from "./random_steps.ts";

const dtypes = ["f32", "i32", "u32", "bool", "f16", "bf16"] as const;

/** One argument: its contents are a function of `seed`, but for the places that `odd` names. */
export interface DrawnInput {
  readonly shape: readonly number[];
  readonly dtype: typeof dtypes[number];
  readonly seed: number;
  readonly odd: readonly { readonly at: number; readonly what: number }[];
  /** Where it is not null, the argument is the same tensor as this one before it, counted round. */
  readonly same: number | null;
}

/** One step: an operation of the table, the values it takes (counted back from the newest) and its choices. */
export interface DrawnStep {
  readonly op: string;
  readonly of: number;
  readonly choices: readonly number[];
  readonly within: readonly ("grad" | "vmap" | "checkpoint")[];
}

/** A program with its arguments. */
export interface RandomProgram {
  readonly inputs: readonly DrawnInput[];
  readonly steps: readonly DrawnStep[];
  readonly outputs: readonly number[];
  /** Whether arithmetic meets infinities and NaN; else they are only moved, converted and tested for. */
  readonly nonFinite: boolean;
}

/** What programs are drawn from. */
export interface ProgramOptions {
  /** The most steps. Default 20. */
  readonly length?: number;
  /** Not for WebGPU, whose arithmetic may assume that there is neither infinity nor NaN. Default true. */
  readonly nonFinite?: boolean;
  /** The operations, by name. All by default. */
  readonly ops?: readonly string[];
}

const odd: Readonly<Record<DrawnInput["dtype"], readonly number[]>> = {
  f32: [NaN, Infinity, -Infinity, -0],
  f16: [NaN, Infinity, -Infinity, -0],
  bf16: [NaN, Infinity, -Infinity, -0],
  i32: [-(2 ** 31), 2 ** 31 - 1, -1, 1 - 2 ** 31],
  u32: [2 ** 32 - 1, 2 ** 31, 2 ** 31 - 1, 1],
  bool: [0, 1, 0, 1],
};

/** Programs, their arguments among them. */
export function programs(options: ProgramOptions = {}): fc.Arbitrary<RandomProgram> {
  const { length = 20, nonFinite = true, ops = Object.keys(steps) } = options;
  const choice = fc.nat(999);
  const size = fc.oneof(
    { weight: 1, arbitrary: fc.constant(0) },
    { weight: 3, arbitrary: fc.constant(1) },
    { weight: 12, arbitrary: fc.integer({ min: 2, max: 6 }) },
  );
  const input = fc.record({
    shape: fc.array(size, { maxLength: 4 }),
    dtype: fc.oneof({ weight: 4, arbitrary: fc.constant("f32" as const) }, fc.constantFrom(...dtypes)),
    seed: choice,
    odd: fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      fc.array(fc.record({ at: choice, what: fc.nat(3) }), { maxLength: 2 }),
    ),
    same: fc.option(choice, { freq: 5 }),
  });
  const step = fc.record({
    op: fc.constantFrom(...ops),
    of: fc.nat(5),
    choices: fc.array(choice, { minLength: 4, maxLength: 4 }),
    within: fc.oneof(
      { weight: 5, arbitrary: fc.constant([]) },
      fc.array(fc.constantFrom("grad" as const, "vmap" as const, "checkpoint" as const), {
        minLength: 1,
        maxLength: 2,
      }),
    ),
  });
  return fc.record({
    inputs: fc.array(input, { minLength: 1, maxLength: 6 }),
    steps: fc.array(step, { minLength: 1, maxLength: length }),
    outputs: fc.array(choice, { minLength: 1, maxLength: 3 }),
    nonFinite: fc.constant(nonFinite),
  });
}

/** Whether an argument may hold an infinity or NaN. */
const isWild = ({ dtype, odd }: DrawnInput) => isFloat(dtype) && odd.some(({ what }) => what < 3);

/** The place of the argument whose tensor each argument is. */
export function aliases({ inputs }: RandomProgram): number[] {
  const own: number[] = [];
  inputs.forEach(({ same }, i) => own.push(same === null || i === 0 ? i : own[same % i]));
  return own;
}

/** The arguments' contents; those that are the same tensor are the same object. */
export function hostInputs(program: RandomProgram): HostTensor[] {
  const made: HostTensor[] = [];
  aliases(program).forEach((of, i) => made.push(of < i ? made[of] : contents(program.inputs[of])));
  return made;
}

function contents({ shape, dtype, seed, odd: places }: DrawnInput): HostTensor {
  const size = sizeOf(shape);
  const data = hostArray(dtype, size);
  const put = (i: number, x: number) => data[i] = dtype === "f16" ? toF16(x) : dtype === "bf16" ? toBf16(x) : x;
  for (let i = 0; i < size; i++) {
    // Seed 0, which failures shrink to, counts; others mix the place with the seed.
    const n = seed === 0 ? i : Math.imul(i + 1, 0x9e3779b1 + 2 * seed * 0x85eb) >>> 11;
    put(i, dtype === "bool" ? n % 2 : dtype === "u32" ? n % 9 : n % 9 - 4);
  }
  if (size > 0) { for (const { at, what } of places) put(at % size, odd[dtype][what]); }
  return { shape, dtype, data };
}

/** The program as a function of its arguments, to be traced: its outputs. */
export function traced(program: RandomProgram): (inputs: Value[]) => Value[] {
  return (inputs) => interpret(program, inputs).outputs;
}

function interpret(program: RandomProgram, inputs: readonly Value[]) {
  const own = aliases(program);
  const draws = new Draws(program.nonFinite, own.map((i) => isWild(program.inputs[i])), inputs);
  for (const { op, of, choices, within } of program.steps) {
    const exact = within.filter((name) => name !== "grad" || !roundedSlopes.has(op));
    draws.step(steps[op], of, choices, exact);
  }
  const { all } = draws;
  return { outputs: program.outputs.map((n) => all[Math.max(0, all.length - 1 - n % 12)]), margins: draws.margins };
}

/** How near to its threshold a decision may be: a thousand times what the rounding of such short rows makes of it. */
const nearest = 2 ** -10;

/**
 * What the program gives, by the oracle. Null where the program is none to compare by: a decision is too near to its
 * threshold.
 */
export function expected(program: RandomProgram): OracleTensor[] | null {
  const { outputs, margins } = runOracle(
    (inputs: Value[]) => interpret(program, inputs),
    hostInputs(program).map(asOracle),
  ) as { outputs: OracleTensor[]; margins: OracleTensor[] };
  return margins.every((m) => m.data.every((x) => !(Math.abs(x) < nearest))) ? outputs : null;
}

function asOracle(host: HostTensor): OracleTensor {
  const widen = host.dtype === "f16" ? fromF16 : host.dtype === "bf16" ? fromBf16 : (x: number) => x;
  return { shape: host.shape, dtype: host.dtype, data: Float64Array.from(host.data, widen) };
}

/** What was read, as numbers. */
export function numbers(got: HostTensor | number, dtype: DType): number[] {
  if (typeof got === "number") return [got + 0];
  const widen = dtype === "f16" ? fromF16 : dtype === "bf16" ? fromBf16 : (x: number) => x;
  return Array.from(got.data, (x) => widen(x) + 0);
}

/** The first place where what was read is not what the oracle gives, in a sentence; null where there is none. */
export function difference(got: readonly (HostTensor | number)[], want: readonly OracleTensor[]): string | null {
  for (const [i, w] of want.entries()) {
    const own = numbers(got[i], w.dtype);
    if (own.length !== w.data.length) return `output ${i} has ${own.length} elements, not ${w.data.length}`;
    const at = own.findIndex((x, j) => !Object.is(x, w.data[j] + 0));
    if (at >= 0) return `output ${i} (${w.dtype}[${w.shape}]) has ${own[at]} at ${at}, not ${w.data[at]}`;
  }
  return null;
}
