/**
 * The tensor types of GGUF files and how their blocks become numbers. Layouts: ggml's block structures (`block_q4_0`,
 * `block_q2_K`, …). In every type a block is a run along the innermost dimension.
 */
import { widenBf16, widenF16 } from "../convert.ts";

/** One GGUF tensor type. */
export interface GgufType {
  readonly name: string;
  /** Values in a block. */
  readonly values: number;
  /** Bytes of a block; always even, except in types of one value. */
  readonly bytes: number;
  /** Writes `values` × (number of blocks in `bytes`) f32 values to the start of `out`. `bytes` begins at an aligned address. */
  readonly dequantize: (bytes: Uint8Array, out: Float32Array) => void;
}

/** The values of the 4-bit non-linear types (ggml `kvalues_iq4nl`). */
const iq4Values = Float32Array.of(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/** A quantised type whose blocks are decoded one at a time: `decode(bytes, halves, at, out, o)` for the block at byte `at`. */
function blocks(
  name: string,
  values: number,
  bytes: number,
  decode: (b: Uint8Array, halves: Float16Array, at: number, out: Float32Array, o: number) => void,
): GgufType {
  return {
    name,
    values,
    bytes,
    dequantize(source, out) {
      // Scales lie at even offsets, so that they are read as elements of one view.
      const halves = new Float16Array(source.buffer as ArrayBuffer, source.byteOffset, source.length >> 1);
      for (let at = 0, o = 0; at < source.length; at += bytes, o += values) decode(source, halves, at, out, o);
    },
  };
}

const f32: GgufType = {
  name: "F32",
  values: 1,
  bytes: 4,
  dequantize: (bytes, out) =>
    out.set(new Float32Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length >> 2)),
};

const f16: GgufType = {
  name: "F16",
  values: 1,
  bytes: 2,
  dequantize: (bytes, out) =>
    widenF16(new Uint16Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length >> 1), out),
};

const bf16: GgufType = {
  name: "BF16",
  values: 1,
  bytes: 2,
  dequantize: (bytes, out) => {
    const words = new Uint16Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length >> 1);
    widenBf16(words, out.subarray(0, words.length));
  },
};

/** {f16 d; 16 bytes}: (q - 8) d; low nibbles are values 0 to 15, high ones 16 to 31. */
const q4_0 = blocks("Q4_0", 32, 18, (b, halves, at, out, o) => {
  const d = halves[at >> 1];
  for (let i = 0; i < 16; i++) {
    const q = b[at + 2 + i];
    out[o + i] = ((q & 15) - 8) * d;
    out[o + 16 + i] = ((q >> 4) - 8) * d;
  }
});

/** {f16 d, m; 16 bytes}: q d + m. */
const q4_1 = blocks("Q4_1", 32, 20, (b, halves, at, out, o) => {
  const d = halves[at >> 1], m = halves[(at >> 1) + 1];
  for (let i = 0; i < 16; i++) {
    const q = b[at + 4 + i];
    out[o + i] = (q & 15) * d + m;
    out[o + 16 + i] = (q >> 4) * d + m;
  }
});

/** {f16 d; u32 fifth bits; 16 bytes}: (q - 16) d. */
const q5_0 = blocks("Q5_0", 32, 22, (b, halves, at, out, o) => {
  const d = halves[at >> 1];
  const high = word(b, at + 2);
  for (let i = 0; i < 16; i++) {
    const q = b[at + 6 + i];
    out[o + i] = ((q & 15 | (high >>> i & 1) << 4) - 16) * d;
    out[o + 16 + i] = ((q >> 4 | (high >>> (i + 16) & 1) << 4) - 16) * d;
  }
});

/** {f16 d, m; u32 fifth bits; 16 bytes}: q d + m. */
const q5_1 = blocks("Q5_1", 32, 24, (b, halves, at, out, o) => {
  const d = halves[at >> 1], m = halves[(at >> 1) + 1];
  const high = word(b, at + 4);
  for (let i = 0; i < 16; i++) {
    const q = b[at + 8 + i];
    out[o + i] = (q & 15 | (high >>> i & 1) << 4) * d + m;
    out[o + 16 + i] = (q >> 4 | (high >>> (i + 16) & 1) << 4) * d + m;
  }
});

/** {f16 d; 32 i8}: q d. */
const q8_0 = blocks("Q8_0", 32, 34, (b, halves, at, out, o) => {
  const d = halves[at >> 1];
  for (let i = 0; i < 32; i++) out[o + i] = (b[at + 2 + i] << 24 >> 24) * d;
});

/** {16 scale-and-minimum nibbles; 64 bytes of 2-bit values; f16 d, dmin}: 16 groups of 16. */
const q2_K = blocks("Q2_K", 256, 84, (b, halves, at, out, o) => {
  const d = halves[(at + 80) >> 1], min = halves[(at + 82) >> 1];
  for (let group = 0; group < 16; group++) {
    const scale = d * (b[at + group] & 15), least = min * (b[at + group] >> 4);
    const from = at + 16 + (group >> 3) * 32 + (group & 1) * 16, shift = (group >> 1 & 3) * 2;
    for (let i = 0; i < 16; i++) out[o + group * 16 + i] = scale * (b[from + i] >> shift & 3) - least;
  }
});

/** {32 bytes of third bits; 64 bytes of 2-bit values; 12 bytes of 6-bit scales; f16 d}: 16 groups of 16. */
const q3_K = blocks("Q3_K", 256, 110, (b, halves, at, out, o) => {
  const d = halves[(at + 108) >> 1];
  for (let group = 0; group < 16; group++) {
    const low = b[at + 96 + (group & 7)] >> (group >> 3) * 4 & 15;
    const top = b[at + 104 + (group & 3)] >> (group >> 2) * 2 & 3;
    const scale = Math.fround(d * ((low | top << 4) - 32));
    const within = (group & 1) * 16, half = group >> 3, bit = group >> 1;
    const from = at + 32 + half * 32 + within, shift = (bit & 3) * 2;
    for (let i = 0; i < 16; i++) {
      const third = b[at + within + i] >> bit & 1;
      out[o + group * 16 + i] = scale * ((b[from + i] >> shift & 3) - (third ? 0 : 4));
    }
  }
});

/** {f16 d, dmin; 12 bytes of 6-bit scales and minimums; 128 bytes}: 8 groups of 32. */
const q4_K = blocks("Q4_K", 256, 144, (b, halves, at, out, o) => {
  const d = halves[at >> 1], min = halves[(at >> 1) + 1];
  for (let group = 0; group < 8; group++) {
    const scale = d * scaleK4(b, at + 4, group), least = min * minimumK4(b, at + 4, group);
    const from = at + 16 + (group >> 1) * 32, shift = (group & 1) * 4;
    for (let i = 0; i < 32; i++) out[o + group * 32 + i] = scale * (b[from + i] >> shift & 15) - least;
  }
});

/** {f16 d, dmin; 12 bytes as in Q4_K; 32 bytes of fifth bits; 128 bytes}: 8 groups of 32. */
const q5_K = blocks("Q5_K", 256, 176, (b, halves, at, out, o) => {
  const d = halves[at >> 1], min = halves[(at >> 1) + 1];
  for (let group = 0; group < 8; group++) {
    const scale = d * scaleK4(b, at + 4, group), least = min * minimumK4(b, at + 4, group);
    const from = at + 48 + (group >> 1) * 32, shift = (group & 1) * 4;
    for (let i = 0; i < 32; i++) {
      const q = b[from + i] >> shift & 15 | (b[at + 16 + i] >> group & 1) << 4;
      out[o + group * 32 + i] = scale * q - least;
    }
  }
});

/** {128 bytes of low nibbles; 64 bytes of upper bits; 16 i8 scales; f16 d}: 16 groups of 16, (q - 32) d scale. */
const q6_K = blocks("Q6_K", 256, 210, (b, halves, at, out, o) => {
  const d = halves[(at + 208) >> 1];
  for (let group = 0; group < 16; group++) {
    const scale = Math.fround(d * (b[at + 192 + group] << 24 >> 24));
    const half = group >> 3, quarter = group >> 1 & 3, within = (group & 1) * 16;
    const low = at + half * 64 + (quarter & 1) * 32 + within, high = at + 128 + half * 32 + within;
    for (let i = 0; i < 16; i++) {
      const q = b[low + i] >> (quarter >> 1) * 4 & 15 | (b[high + i] >> quarter * 2 & 3) << 4;
      out[o + group * 16 + i] = scale * (q - 32);
    }
  }
});

/** {f16 d; 16 bytes}: d × a value of the table. */
const iq4_NL = blocks("IQ4_NL", 32, 18, (b, halves, at, out, o) => {
  const d = halves[at >> 1];
  for (let i = 0; i < 16; i++) {
    const q = b[at + 2 + i];
    out[o + i] = d * iq4Values[q & 15];
    out[o + 16 + i] = d * iq4Values[q >> 4];
  }
});

/** {f16 d; u16 upper scale bits; 4 bytes of lower ones; 128 bytes}: 8 groups of 32 as in IQ4_NL. */
const iq4_XS = blocks("IQ4_XS", 256, 136, (b, halves, at, out, o) => {
  const d = halves[at >> 1];
  const upper = b[at + 2] | b[at + 3] << 8;
  for (let group = 0; group < 8; group++) {
    const low = b[at + 4 + (group >> 1)] >> (group & 1) * 4 & 15;
    const scale = Math.fround(d * ((low | (upper >> group * 2 & 3) << 4) - 32));
    const from = at + 8 + group * 16;
    for (let i = 0; i < 16; i++) {
      const q = b[from + i];
      out[o + group * 32 + i] = scale * iq4Values[q & 15];
      out[o + group * 32 + 16 + i] = scale * iq4Values[q >> 4];
    }
  }
});

/** The 6-bit scale of a group of Q4_K and Q5_K: groups 4 to 7 have their two upper bits in the bytes of groups 0 to 3. */
export function scaleK4(b: Uint8Array, at: number, group: number): number {
  return group < 4 ? b[at + group] & 63 : b[at + group + 4] & 15 | b[at + group - 4] >> 6 << 4;
}

/** The 6-bit minimum of a group, laid out the same way. */
export function minimumK4(b: Uint8Array, at: number, group: number): number {
  return group < 4 ? b[at + group + 4] & 63 : b[at + group + 4] >> 4 | b[at + group] >> 6 << 4;
}

function word(b: Uint8Array, at: number): number {
  return (b[at] | b[at + 1] << 8 | b[at + 2] << 16 | b[at + 3] << 24) >>> 0;
}

/** The tensor types that are read, by their number in the file (`enum ggml_type`). */
export const ggufTypes: ReadonlyMap<number, GgufType> = new Map([
  [0, f32],
  [1, f16],
  [2, q4_0],
  [3, q4_1],
  [6, q5_0],
  [7, q5_1],
  [8, q8_0],
  [10, q2_K],
  [11, q3_K],
  [12, q4_K],
  [13, q5_K],
  [14, q6_K],
  [20, iq4_NL],
  [23, iq4_XS],
  [30, bf16],
]);
