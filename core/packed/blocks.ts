/**
 * Packed types: weights of 4 to 8 bits that stay so in memory. Each is stored as u32 words that kernels only load, in
 * regions one after the other: the codes of all values, then what scales them. Values are numbered along the flattened
 * array; a run is 32 of them.
 *
 * Codes are spread so that one vector of four words gives four neighbours at each shift: of 4-bit codes, value i of a run
 * has nibble i >> 2 of word i & 3; of 8-bit ones, value i of half a run has byte i >> 2 of word i & 3. The same vector read
 * from four rows gives four rows at once.
 */

/**
 * A type of 4 to 8 bits a value. `nf4` is QLoRA's, its scales quantised too; `nf4_f32` and `fp4_f32` are bitsandbytes' NF4 and
 * FP4 with an f32 scale for each 64 values, which says its other blocks, and doubly quantised scales, too. The rest are GGUF's.
 */
export type PackedType = "q4_0" | "q4_1" | "q8_0" | "q4_k" | "q6_k" | "nf4" | "nf4_f32" | "fp4_f32";

/** What tells one packed type from another. */
export interface PackedFormat {
  /** Bits of a code: 6 are kept as 4 and, in a region of their own, 2. */
  readonly bits: 4 | 6 | 8;
  /** The size of an array is padded up to a multiple of this. */
  readonly block: number;
  /** Values that share a scale. */
  readonly group: 16 | 32;
  /** What is taken from a code before it is scaled; `table` looks it up in {@link codeTables}, signed codes have 8 bits. */
  readonly code: { readonly minus: number } | "signed" | "table";
  /** Whether something is added after scaling. */
  readonly shifted: boolean;
}

export const packedFormats: Readonly<Record<PackedType, PackedFormat>> = {
  q4_0: { bits: 4, block: 32, group: 32, code: { minus: 8 }, shifted: false },
  q4_1: { bits: 4, block: 32, group: 32, code: { minus: 0 }, shifted: true },
  q8_0: { bits: 8, block: 32, group: 32, code: "signed", shifted: false },
  q4_k: { bits: 4, block: 256, group: 32, code: { minus: 0 }, shifted: true },
  q6_k: { bits: 6, block: 256, group: 16, code: { minus: 32 }, shifted: false },
  nf4: { bits: 4, block: 64, group: 32, code: "table", shifted: false },
  nf4_f32: { bits: 4, block: 64, group: 32, code: "table", shifted: false },
  fp4_f32: { bits: 4, block: 64, group: 32, code: "table", shifted: false },
};

/** All packed types. */
export const packedTypes = Object.keys(packedFormats) as readonly PackedType[];

/** Where the regions of an array of some size begin, in words. */
export interface PackedLayout {
  /** The two upper bits of 6-bit codes: value i of 64 has bits 2·(i >> 2) of word i & 3. */
  readonly high: number;
  /**
   * q4_0, q8_0: one f16 d a run. q4_1: f16 d and m a run. q4_k: a scale and a minimum byte a run. q6_k: an i8 for each 16
   * values. nf4: a byte for each 64, an index into `map`. nf4_f32, fp4_f32: an f32 for each 64.
   */
  readonly scales: number;
  /** q4_k: f16 d and dmin for each 256 values. q6_k: f16 d for each 256. nf4: an f32 for each 16384. */
  readonly supers: number;
  /** nf4: 256 f32, what the bytes of `scales` stand for, then the f32 that is added to every scale. */
  readonly map: number;
  /** The end of all. */
  readonly words: number;
}

/** The regions of a packed array of `size` values. */
export function packedLayout(type: PackedType, size: number): PackedLayout {
  const { bits, block } = packedFormats[type];
  const padded = Math.ceil(size / block) * block, runs = padded / 32;
  const per = (values: number, bytes: number) => Math.ceil(Math.ceil(padded / values) * bytes / 4);
  const high = runs * (bits === 8 ? 8 : 4);
  const scales = high + (bits === 6 ? runs * 2 : 0);
  const region: Record<PackedType, readonly [scales: number, supers: number]> = {
    q4_0: [per(32, 2), 0],
    q4_1: [per(32, 4), 0],
    q8_0: [per(32, 2), 0],
    q4_k: [per(32, 2), per(256, 4)],
    q6_k: [per(16, 1), per(256, 2)],
    nf4: [per(64, 1), per(16384, 4)],
    nf4_f32: [per(64, 4), 0],
    fp4_f32: [per(64, 4), 0],
  };
  // Regions start where a vector does.
  const vectors = (words: number) => Math.ceil(words / 4) * 4;
  const supers = scales + vectors(region[type][0]);
  const map = supers + vectors(region[type][1]);
  return { high, scales, supers, map, words: map + (type === "nf4" ? 260 : 0) };
}

/**
 * The sixteen values of NF4: quantiles of a normal distribution, scaled to [-1, 1]. Source: Dettmers et al. 2023, "QLoRA:
 * Efficient Finetuning of Quantized LLMs", appendix E.
 */
export const nf4Values: Float32Array = Float32Array.of(
  -1,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1,
);

/**
 * The sixteen values of FP4: a sign, two bits of exponent and one of mantissa, scaled to [-1, 1]; the one value below the
 * normal ones is 1/192. Source: bitsandbytes, `create_fp4_map` and its kernels.
 */
const fp4Values: Float32Array = Float32Array.from(
  [1, -1].flatMap((sign) => [0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4].map((x) => sign * x || 0)),
);

/** What the codes of a type stand for, where they are looked up. */
export const codeTables: Readonly<Partial<Record<PackedType, Float32Array>>> = {
  nf4: nf4Values,
  nf4_f32: nf4Values,
  fp4_f32: fp4Values,
};

/** Whether a type is a packed one. */
export function isPacked(dtype: string): dtype is PackedType {
  return Object.hasOwn(packedFormats, dtype);
}
