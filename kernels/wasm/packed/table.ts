/** Codes that are looked up in a table. */
import type { Code, Local } from "../assembler.ts";

/**
 * Pushes which of the sixteen values the 4-bit codes of `words` mean, as `PackedReader.codes` does: each of the four bytes of an f32 is
 * looked up for sixteen codes at once.
 */
export function emitTableCodes(
  code: Code,
  values: Float32Array,
  words: Local,
  visit: (j: number) => void,
  most: number,
): void {
  const bytes = Uint8Array.from(new Uint8Array(values.buffer, values.byteOffset, 64));
  const tables = [0, 1, 2, 3].map((plane) => Array.from({ length: 16 }, (_, i) => bytes[4 * i + plane]));
  const planes = tables.map(() => code.local("v128")), pairs = [code.local("v128"), code.local("v128")];
  for (const odd of most === 1 ? [0] : [0, 1]) {
    planes.forEach((plane, i) => {
      code.bytes(tables[i]).get(words);
      if (odd === 1) code.i32(4).op("i32x4.shr_u");
      code.i32x4(0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f, 0x0f0f0f0f).op("v128.and", "i8x16.swizzle").set(plane);
    });
    for (let b = 0; b < Math.ceil(most / 2); b++) {
      // Byte b of each word, from two planes, then pairs of bytes from both pairs of planes.
      const zip = (from: number) => [0, 1, 2, 3].flatMap((l) => [from + 4 * l + b, from + 16 + 4 * l + b]);
      const pad = (list: number[]) => [...list, ...list];
      pairs.forEach((pair, p) => {
        code.get(planes[2 * p]).get(planes[2 * p + 1]).shuffleBytes(pad(zip(0))).set(pair);
      });
      code.get(pairs[0]).get(pairs[1]);
      code.shuffleBytes([0, 1, 2, 3].flatMap((l) => [2 * l, 2 * l + 1, 16 + 2 * l, 17 + 2 * l]));
      visit(2 * b + odd);
    }
  }
  code.release("v128", ...planes, ...pairs);
}
