/** GGUF blocks as packed arrays: the same codes and scales, moved to where kernels look for them. Nothing is rounded. */
import type { PackedType } from "../../../core/packed/blocks.ts";
import type { PackedWriter } from "../../../core/packed/writer.ts";
import { FileError } from "../../../core/errors.ts";
import { minimumK4, scaleK4 } from "./quants.ts";

/** The GGUF types that can stay packed. */
export const packedGgufTypes: Readonly<Record<string, PackedType>> = {
  Q4_0: "q4_0",
  Q4_1: "q4_1",
  Q8_0: "q8_0",
  Q4_K: "q4_k",
  Q6_K: "q6_k",
};

/**
 * Writes whole blocks of a file; the first value of the first is value `first` of the array. `name` is the tensor's.
 *
 * @throws {FileError} when a scale is not finite
 */
export function writeBlocks(to: PackedWriter, blocks: Uint8Array, first: number, name: string): void {
  const { values, bytes, halves, write } = formats[to.type];
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.length);
  for (let at = 0, i = first; at < blocks.length; at += bytes, i += values) {
    for (const half of halves) {
      if ((view.getUint16(at + half, true) & 0x7c00) === 0x7c00) {
        throw new FileError(`${name} holds a scale that is not finite: the file is damaged; download it again.`);
      }
    }
    write(to, blocks, view, at, i);
  }
}

type Write = (to: PackedWriter, b: Uint8Array, view: DataView, at: number, i: number) => void;

/** Two halves of a run that lie in the nibbles of sixteen bytes: values 0 to 15 in the low ones. */
function nibblePairs(to: PackedWriter, b: Uint8Array, from: number, run: number): void {
  to.nibbles(run, 0, (i) => b[from + i] & 15);
  to.nibbles(run, 1, (i) => b[from + i] >> 4);
}

/** A block of a file: its values and bytes, where its f16 scales lie, and how it is moved. */
interface Block {
  readonly values: number;
  readonly bytes: number;
  readonly halves: readonly number[];
  readonly write: Write;
}

const formats: Readonly<Record<string, Block>> = {
  q4_0: {
    values: 32,
    bytes: 18,
    halves: [0],
    write: (to, b, view, at, i) => {
      to.scale(i >> 5, view.getUint16(at, true));
      nibblePairs(to, b, at + 2, i >> 5);
    },
  },
  q4_1: {
    values: 32,
    bytes: 20,
    halves: [0, 2],
    write: (to, b, view, at, i) => {
      for (const half of [0, 1]) to.scale(2 * (i >> 5) + half, view.getUint16(at + 2 * half, true));
      nibblePairs(to, b, at + 4, i >> 5);
    },
  },
  q8_0: {
    values: 32,
    bytes: 34,
    halves: [0],
    write: (to, b, view, at, i) => {
      to.scale(i >> 5, view.getUint16(at, true));
      for (let j = 0; j < 32; j++) to.byte(i + j, b[at + 2 + j]);
    },
  },
  q4_k: {
    values: 256,
    bytes: 144,
    halves: [0, 2],
    write: (to, b, view, at, i) => {
      for (const half of [0, 1]) to.superscale(2 * (i >> 8) + half, view.getUint16(at + 2 * half, true));
      for (let group = 0; group < 8; group++) {
        const run = (i >> 5) + group, from = at + 16 + (group >> 1) * 32, shift = (group & 1) * 4;
        to.scaleByte(2 * run, scaleK4(b, at + 4, group));
        to.scaleByte(2 * run + 1, minimumK4(b, at + 4, group));
        for (const half of [0, 1] as const) to.nibbles(run, half, (j) => b[from + 16 * half + j] >> shift & 15);
      }
    },
  },
  q6_k: {
    values: 256,
    bytes: 210,
    halves: [208],
    write: (to, b, view, at, i) => {
      to.superscale(i >> 8, view.getUint16(at + 208, true));
      for (let group = 0; group < 16; group++) to.scaleByte((i >> 4) + group, b[at + 192 + group]);
      for (let r = 0; r < 8; r++) {
        const half = r >> 2, quarter = r & 3;
        const low = at + half * 64 + (quarter & 1) * 32, high = at + 128 + half * 32;
        for (const upper of [0, 1] as const) {
          to.nibbles((i >> 5) + r, upper, (j) => b[low + 16 * upper + j] >> (quarter >> 1) * 4 & 15);
        }
        for (let j = 0; j < 32; j++) to.upper(i + 32 * r + j, b[high + j] >> quarter * 2 & 3);
      }
    },
  },
};
