/** Packed arrays read one value after the other, as `core/packed/blocks.ts` describes them: what emitted loaders are tested against. */
import { fromF16 } from "../core/dtype.ts";
import { codeTables, nf4Values, packedFormats, packedLayout, type PackedType } from "../core/packed/blocks.ts";

/** The values of a packed array, and for each |scaled code| + |what is added|: the terms that a kernel may sum apart. */
export function decodePacked(
  type: PackedType,
  size: number,
  words: ArrayLike<number>,
): { values: Float64Array; terms: Float64Array } {
  const { high, scales, supers, map } = packedLayout(type, size);
  const { bits } = packedFormats[type];
  const byte = (at: number, i: number) => words[at + (i >> 2)] >>> 8 * (i & 3) & 255;
  const half = (at: number, i: number) => fromF16(words[at + (i >> 1)] >>> 16 * (i & 1) & 65535);
  const float = (at: number) => new Float32Array(Uint32Array.of(words[at]).buffer)[0];
  const signed = (x: number) => x << 24 >> 24;
  const code = (i: number) => {
    const run = i >> 5, within = i & 31;
    if (bits === 8) return byte(run * 8 + (within >> 4) * 4 + (i & 3), within >> 2 & 3);
    const low = words[run * 4 + (i & 3)] >>> 4 * (within >> 2) & 15;
    return bits === 4 ? low : low | (words[high + (i >> 6) * 4 + (i & 3)] >>> 2 * ((i & 63) >> 2) & 3) << 4;
  };
  const parts: Record<PackedType, (i: number) => readonly [scaled: number, added: number]> = {
    q4_0: (i) => [(code(i) - 8) * half(scales, i >> 5), 0],
    q4_1: (i) => [code(i) * half(scales, 2 * (i >> 5)), half(scales, 2 * (i >> 5) + 1)],
    q8_0: (i) => [signed(code(i)) * half(scales, i >> 5), 0],
    q4_k: (i) => [
      code(i) * half(supers, 2 * (i >> 8)) * byte(scales, 2 * (i >> 5)),
      -half(supers, 2 * (i >> 8) + 1) * byte(scales, 2 * (i >> 5) + 1),
    ],
    q6_k: (i) => [(code(i) - 32) * half(supers, i >> 8) * signed(byte(scales, i >> 4)), 0],
    nf4: (i) => {
      // Each of these is an f32 in the format's own definition.
      const scale = Math.fround(Math.fround(float(map + byte(scales, i >> 6)) * float(supers + (i >> 14))));
      return [nf4Values[code(i)] * Math.fround(scale + float(map + 256)), 0];
    },
    nf4_f32: (i) => [codeTables[type]![code(i)] * float(scales + (i >> 6)), 0],
    fp4_f32: (i) => [codeTables[type]![code(i)] * float(scales + (i >> 6)), 0],
  };
  const values = new Float64Array(size), terms = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    const [scaled, added] = parts[type](i);
    // A shift of 0 would make 0 of -0.
    values[i] = packedFormats[type].shifted ? scaled + added : scaled;
    terms[i] = Math.abs(scaled) + Math.abs(added);
  }
  return { values, terms };
}

/** Random words of a packed array: any codes, scales of ordinary size. */
export function randomPacked(type: PackedType, size: number, seed: number): Uint32Array<ArrayBuffer> {
  const { scales, supers, map, words } = packedLayout(type, size);
  let state = Math.imul(seed + 1, 2654435761) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  const out = Uint32Array.from({ length: words }, next);
  const halves = (from: number, to: number, low = 0x2000) => {
    // Positive and negative f16 of one or two powers of two.
    for (let i = from; i < to; i++) out[i] = out[i] & 0x83ff83ff | low | low << 16;
  };
  if (type === "q4_0" || type === "q4_1" || type === "q8_0") halves(scales, supers, type === "q8_0" ? 0x1c00 : 0x3000);
  if (type === "q4_k" || type === "q6_k") halves(supers, map, type === "q4_k" ? 0x1800 : 0x1400);
  const floats = new Float32Array(out.buffer);
  if (type === "nf4_f32" || type === "fp4_f32") {
    for (let i = scales; i < supers; i++) floats[i] = 0.5 + (out[i] >>> 8) * 2 ** -24;
  }
  if (type === "nf4") {
    for (let i = supers; i < map; i++) floats[i] = 0.5 + (out[i] >>> 8) * 2 ** -24;
    for (let i = 0; i < 256; i++) floats[map + i] = (i - 127) / 128;
    floats[map + 256] = 1.5;
  }
  return out;
}
