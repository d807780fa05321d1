/** From numbers to packed arrays, as the tools do whose types these are. */
import { toF16 } from "../dtype.ts";
import { nf4Values, packedFormats } from "./blocks.ts";
import { PackedWriter } from "./writer.ts";

/** A type that numbers can be packed into; the others are only read. */
export type EncodedType = "nf4" | "q8_0" | "q4_0" | "q4_1";

/** All of them. */
export const encodedTypes: readonly EncodedType[] = ["nf4", "q8_0", "q4_0", "q4_1"];

/**
 * The words of an array in a packed type: each value becomes the nearest that its block can say.
 *
 * Sources: ggml's `quantize_row_*_ref`; Dettmers et al. 2023, "QLoRA", for nf4 with double quantisation.
 */
export function encodePacked(type: EncodedType, values: Float32Array): Uint32Array<ArrayBuffer> {
  const { block } = packedFormats[type];
  const padded = values.length % block === 0 ? values : new Float32Array(Math.ceil(values.length / block) * block);
  if (padded !== values) padded.set(values);
  const writer = new PackedWriter(type, values.length);
  encoders[type](writer, padded);
  return writer.words;
}

const encoders: Readonly<Record<EncodedType, (to: PackedWriter, x: Float32Array) => void>> = {
  q8_0: (to, x) => {
    for (let i = 0; i < x.length; i += 32) {
      const d = Math.fround(greatest(x, i, 32) / 127), inverse = d === 0 ? 0 : Math.fround(1 / d);
      to.scale(i >> 5, toF16(d));
      for (let j = 0; j < 32; j++) to.byte(i + j, roundAway(Math.fround(x[i + j] * inverse)) & 255);
    }
  },
  q4_0: (to, x) => {
    for (let i = 0; i < x.length; i += 32) {
      let most = 0;
      for (let j = 0; j < 32; j++) if (Math.abs(x[i + j]) > Math.abs(most)) most = x[i + j];
      const d = Math.fround(most / -8), inverse = d === 0 ? 0 : Math.fround(1 / d);
      to.scale(i >> 5, toF16(d));
      putNibbles(to, i, (j) => Math.min(15, Math.trunc(Math.fround(Math.fround(x[i + j] * inverse) + 8.5))));
    }
  },
  q4_1: (to, x) => {
    for (let i = 0; i < x.length; i += 32) {
      let [low, high] = [Infinity, -Infinity];
      for (let j = 0; j < 32; j++) [low, high] = [Math.min(low, x[i + j]), Math.max(high, x[i + j])];
      const d = Math.fround(Math.fround(high - low) / 15), inverse = d === 0 ? 0 : Math.fround(1 / d);
      to.scale(2 * (i >> 5), toF16(d));
      to.scale(2 * (i >> 5) + 1, toF16(low));
      const code = (v: number) => Math.fround(Math.fround(Math.fround(v - low) * inverse) + 0.5);
      putNibbles(to, i, (j) => Math.min(15, Math.trunc(code(x[i + j]))));
    }
  },
  nf4: (to, x) => {
    const { codes, absmax } = nf4Blocks(x, 64);
    for (let run = 0; run < x.length; run += 32) putNibbles(to, run, (j) => codes[run + j]);
    const { bytes, supers, map, offset } = quantizeScales(absmax);
    bytes.forEach((byte, i) => to.scaleByte(i, byte));
    supers.forEach((value, i) => to.superscaleFloat(i, value));
    to.map(map, offset);
  },
};

/** The codes of NF4 for blocks of any size, and each block's greatest magnitude. */
export function nf4Blocks(x: Float32Array, block: number): { codes: Uint8Array; absmax: Float32Array } {
  const codes = new Uint8Array(x.length), absmax = new Float32Array(Math.ceil(x.length / block));
  for (let b = 0; b < absmax.length; b++) {
    const end = Math.min(x.length, block * (b + 1));
    absmax[b] = greatest(x, block * b, end - block * b);
    const inverse = absmax[b] === 0 ? 0 : Math.fround(1 / absmax[b]);
    for (let i = block * b; i < end; i++) codes[i] = nearestNf4(Math.fround(x[i] * inverse));
  }
  return { codes, absmax };
}

/** Scales quantised too: less their mean, 8 bits each of a dynamic map, scaled in blocks of 256. */
export function quantizeScales(
  absmax: Float32Array,
): { bytes: Uint8Array; supers: Float32Array; map: Float32Array; offset: number } {
  const offset = Math.fround(absmax.reduce((sum, x) => sum + x, 0) / Math.max(1, absmax.length));
  const centred = absmax.map((x) => x - offset);
  const map = dynamicMap(),
    bytes = new Uint8Array(absmax.length),
    supers = new Float32Array(Math.ceil(absmax.length / 256));
  for (let b = 0; b < centred.length; b += 256) {
    const count = Math.min(256, centred.length - b), most = greatest(centred, b, count);
    supers[b / 256] = most;
    for (let i = 0; i < count; i++) {
      // To the nearest of 65536 even steps first, as bitsandbytes looks it up: the same scales come out as there.
      const share = most === 0 ? 0 : Math.fround(centred[b + i] / most);
      bytes[b + i] = nearestIndex(map, Math.round((share + 1) * 32767.5) / 32767.5 - 1);
    }
  }
  return { bytes, supers, map, offset };
}

/**
 * 256 values from -1 to 1 that are denser near 0: seven decades, each with twice as many steps as the one before it. Source:
 * Dettmers 2016, "8-Bit Approximations for Parallelism in Deep Learning"; the construction of bitsandbytes.
 */
function dynamicMap(): Float32Array {
  const values = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const steps = 2 ** decade, scale = Math.fround(10 ** (decade - 6));
    for (let i = 0; i < steps; i++) {
      const [low, high] = [0.1 + 0.9 * i / steps, 0.1 + 0.9 * (i + 1) / steps];
      const middle = Math.fround(scale * Math.fround((low + high) / 2));
      values.push(middle, -middle);
    }
  }
  return Float32Array.from(values).sort();
}

/** The greatest magnitude of some values. */
function greatest(x: Float32Array, from: number, count: number): number {
  let most = 0;
  for (let i = from; i < from + count; i++) most = Math.max(most, Math.abs(x[i]));
  return most;
}

function putNibbles(to: PackedWriter, first: number, code: (i: number) => number): void {
  to.nibbles(first >> 5, 0, code);
  to.nibbles(first >> 5, 1, (j) => code(16 + j));
}

/** To the nearest integer, halves away from 0. */
function roundAway(x: number): number {
  return Math.sign(x) * Math.floor(Math.abs(x) + 0.5);
}

const nf4Middles = Float32Array.from({ length: 15 }, (_, i) => (nf4Values[i] + nf4Values[i + 1]) / 2);

function nearestNf4(x: number): number {
  let code = 0;
  while (code < 15 && x > nf4Middles[code]) code++;
  return code;
}

/** The place of the value of a sorted list that is nearest to `x`. */
function nearestIndex(sorted: Float32Array, x: number): number {
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= x) low = middle;
    else high = middle;
  }
  return x - sorted[low] <= sorted[high] - x ? low : high;
}
