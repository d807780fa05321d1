/**
 * What operations cost, as measured once and kept here, so that what is compiled never depends on a clock. Printed by
 * `deno run --allow-read --allow-env bench/operation_costs.ts [--without-fma | --webgpu]`.
 */
import type { ScalarOp } from "../../core/ir/scalar_op.ts";
import type { Device } from "../device/device.ts";

/** Nanoseconds of one thread of a processor, or of a whole adapter. */
export interface Costs {
  /** Of an element, in a kernel that does more than this. */
  readonly operations: Readonly<Record<ScalarOp, number>>;
  /** Of a word of random bits. */
  readonly random: number;
  /** Of a byte read from memory and of one written to it. */
  readonly read: number;
  readonly write: number;
  /** Of a launch of no work. */
  readonly launch: number;
}

/** An AMD EPYC with AVX-512; `cpu (wasm simd, 1 thread)`. Without fused multiply-add exp takes 1.6 and tanh 1.5. */
const cpu: Costs = {
  operations: {
    add: 0.039,
    sub: 0.036,
    mul: 0.025,
    div: 0.15,
    rem: 0.16,
    pow: 16,
    max: 0.23,
    min: 0.19,
    neg: 0.036,
    abs: 0.035,
    sign: 0.18,
    floor: 0.049,
    exp: 0.77,
    log: 2.5,
    sqrt: 0.28,
    rsqrt: 0.51,
    recip: 0.15,
    tanh: 1,
    erf: 3.1,
    sin: 1.6,
    cos: 2,
    eq: 0.042,
    ne: 0.042,
    lt: 0.042,
    le: 0.042,
    gt: 0.042,
    ge: 0.042,
    select: 0.042,
    isFinite: 0.11,
    and: 0.03,
    or: 0.024,
    xor: 0.016,
    shl: 0.58,
    shr: 0.58,
    not: 0.047,
    convert: 0.082,
    bitcast: 0.01,
  },
  random: 3.7,
  read: 0.059,
  write: 0.06,
  launch: 690,
};

/** Mesa's software adapter on two cores of the same; to a GPU, too, operations are cheap and memory is dear. */
const webgpu: Costs = {
  operations: {
    add: 0.015,
    sub: 0.05,
    mul: 0.01,
    div: 0.084,
    rem: 0.035,
    pow: 0.88,
    max: 0.039,
    min: 0.095,
    neg: 0.01,
    abs: 0.01,
    sign: 0.051,
    floor: 0.013,
    exp: 0.15,
    log: 0.33,
    sqrt: 0.052,
    rsqrt: 0.11,
    recip: 0.058,
    tanh: 0.51,
    erf: 0.64,
    sin: 0.43,
    cos: 0.46,
    eq: 0.042,
    ne: 0.042,
    lt: 0.042,
    le: 0.042,
    gt: 0.042,
    ge: 0.042,
    select: 0.042,
    isFinite: 0.01,
    and: 0.11,
    or: 0.21,
    xor: 0.29,
    shl: 0.11,
    shr: 0.3,
    not: 0.032,
    convert: 0.032,
    bitcast: 0.01,
  },
  random: 0.72,
  read: 0.48,
  write: 0.55,
  launch: 200_000,
};

/** The costs by the kind of a device: every path of the CPU decides alike. */
export const costsOf: Readonly<Record<Device["kind"], Costs>> = { cpu, webgpu };

/**
 * How many trips to memory and back a byte of the arena is worth: a rematerialised value may take so many
 * times as long as writing it and reading it once. On a CPU norms and activations take 2 to 5, a dropped-out copy
 * 10, a product 50, and a training step as a whole some 100 for each byte it holds.
 */
export const defaultTrips = 8;
