import type { ScalarType } from "../../core/dtype.ts";

/** A WGSL function that generated code may call, with the functions it calls in turn. */
interface Helper {
  readonly args: readonly (ScalarType | "vec2<u32>")[];
  readonly result: ScalarType | "vec2<u32>" | "vec4<f32>";
  readonly needs?: readonly HelperName[];
  readonly text: string;
}

/** The functions that WGSL lacks, or has with too little precision. */
export type HelperName =
  | "from_bits"
  | "erf"
  | "tanh_exact"
  | "log_exact"
  | "power"
  | "sine"
  | "cosine"
  | "sine_at"
  | "divide_i32"
  | "divide_u32"
  | "rest_i32"
  | "rest_u32"
  | "to_i32"
  | "to_u32"
  | "threefry"
  | "half"
  | "halves"
  | "brain"
  | "brains"
  | "half_bits"
  | "brain_bits";

const helpers: Record<HelperName, Helper> = {
  // The detour through a variable keeps the compiler from refusing a constant that is not finite.
  from_bits: {
    args: ["u32"],
    result: "f32",
    text: `
fn from_bits(bits: u32) -> f32 {
  var word = bits;
  return bitcast<f32>(word);
}`,
  },
  erf: {
    args: ["f32"],
    result: "f32",
    text: `
// Taylor series near 0, else Abramowitz and Stegun 7.1.26 (1.5e-7 absolute).
fn erf(x: f32) -> f32 {
  let a = abs(x);
  let s = x * x;
  let near = x * (1.1283792 + s * (-0.37612638 + s * (0.11283792 + s *
    (-0.026866171 + s * (0.005223978 + s * (-0.00085483272 + s *
    (0.00012055333 - s * 0.000014925651)))))));
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t *
    (-1.453152027 + t * 1.061405429))));
  let far = 1.0 - p * exp(-min(s, 80.0));
  return select(sign(x) * far, near, a < 0.8);
}`,
  },
  tanh_exact: {
    args: ["f32"],
    result: "f32",
    text: `
// Taylor series near 0, where 1 - 2 / (e + 1) would cancel.
fn tanh_exact(x: f32) -> f32 {
  let s = x * x;
  let near = x * (1.0 + s * (-0.33333333 + s * (0.13333333 + s * (-0.053968254 +
    s * (0.021869489 + s * (-0.0088632355 + s * (0.0035921280 - s *
    0.0014558344)))))));
  let far = 1.0 - 2.0 / (exp(2.0 * min(abs(x), 20.0)) + 1.0);
  return select(sign(x) * far, near, abs(x) < 0.5);
}`,
  },
  log_exact: {
    args: ["f32"],
    result: "f32",
    text: `
// log x for finite x > 0 to a few ulp, near 1 too, where the built-in may be
// 2^-21 off: x = 2^e m, and log m = 2 atanh((m - 1) / (m + 1)).
fn log_exact(x: f32) -> f32 {
  let parts = frexp(x);
  let low = parts.fract < 0.70710678;
  let e = f32(parts.exp) - select(0.0, 1.0, low);
  let m = select(parts.fract, 2.0 * parts.fract, low);
  let z = (m - 1.0) / (m + 1.0);
  let s = z * z;
  let p = z * s * (0.66666667 + s * (0.4 + s * (0.28571429 + s *
    (0.22222222 + s * 0.18181818))));
  return e * 0.693359375 + (2.0 * z + (p - e * 0.00021219444));
}`,
  },
  power: {
    args: ["f32", "f32"],
    result: "f32",
    needs: ["log_exact", "from_bits"],
    text: `
// x^y, of a negative x too where y is an integer.
fn power(x: f32, y: f32) -> f32 {
  if (y == 0.0) { return 1.0; }
  if (x == 0.0) { return select(0.0, from_bits(0x7f800000u), y < 0.0); }
  let size = select(exp(y * log_exact(abs(x))), 1.0, abs(x) == 1.0);
  if (x > 0.0) { return size; }
  if (floor(y) != y) { return from_bits(0x7fc00000u); }
  return select(size, -size, floor(y * 0.5) * 2.0 != y);
}`,
  },
  sine_at: {
    args: ["f32", "i32"],
    result: "f32",
    text: `
// sin(x + quarter pi/2): Cody-Waite reduction by pi/2 in three parts (exact to
// some 100,000 radians), then polynomials on [-pi/4, pi/4].
fn sine_at(x: f32, quarter: i32) -> f32 {
  let k = round(x * 0.63661977);
  let r = ((x - k * 1.5703125) - k * 0.00048255920410156250) -
    k * 0.0000012675907;
  let s = r * r;
  let sine = r + r * s * (-0.16666667 + s * (0.0083333333 + s *
    (-0.00019841270 + s * 0.0000027557319)));
  let cosine = 1.0 + s * (-0.5 + s * (0.041666667 + s * (-0.0013888889 + s *
    (0.000024801587 - s * 0.00000027557319))));
  let turn = i32(k) + quarter;
  let value = select(sine, cosine, (turn & 1) == 1);
  return select(value, -value, (turn & 2) == 2);
}`,
  },
  sine: {
    args: ["f32"],
    result: "f32",
    needs: ["sine_at"],
    text: `
fn sine(x: f32) -> f32 { return sine_at(x, 0); }`,
  },
  cosine: {
    args: ["f32"],
    result: "f32",
    needs: ["sine_at"],
    text: `
fn cosine(x: f32) -> f32 { return sine_at(x, 1); }`,
  },
  divide_i32: {
    args: ["i32", "i32"],
    result: "i32",
    text: `
// x / 0 is -1, and the least number by -1 itself.
fn divide_i32(x: i32, y: i32) -> i32 {
  if (y == 0) { return -1; }
  if (y == -1) { return -x; }
  return x / y;
}`,
  },
  divide_u32: {
    args: ["u32", "u32"],
    result: "u32",
    text: `
// x / 0 is all bits.
fn divide_u32(x: u32, y: u32) -> u32 {
  if (y == 0u) { return 0xffffffffu; }
  return x / y;
}`,
  },
  rest_i32: {
    args: ["i32", "i32"],
    result: "i32",
    text: `
// x % 0 is x.
fn rest_i32(x: i32, y: i32) -> i32 {
  if (y == 0) { return x; }
  if (y == -1) { return 0; }
  return x % y;
}`,
  },
  rest_u32: {
    args: ["u32", "u32"],
    result: "u32",
    text: `
// x % 0 is x.
fn rest_u32(x: u32, y: u32) -> u32 {
  if (y == 0u) { return x; }
  return x % y;
}`,
  },
  to_i32: {
    args: ["f32"],
    result: "i32",
    text: `
// Truncates and saturates; NaN, recognised by its bits, gives 0.
fn to_i32(x: f32) -> i32 {
  if ((bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u) { return 0; }
  let near = i32(clamp(x, -2147483648.0, 2147483520.0));
  return select(near, 2147483647i, x >= 2147483648.0);
}`,
  },
  to_u32: {
    args: ["f32"],
    result: "u32",
    text: `
// Truncates and saturates; NaN, recognised by its bits, gives 0.
fn to_u32(x: f32) -> u32 {
  if ((bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u) { return 0u; }
  let near = u32(clamp(x, 0.0, 4294967040.0));
  return select(near, 4294967295u, x >= 4294967296.0);
}`,
  },
  threefry: {
    args: ["vec2<u32>", "vec2<u32>"],
    result: "vec2<u32>",
    text: `
// threefry2x32 with 20 rounds (Salmon et al. 2011).
fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
  var keys = array<u32, 3>(key.x, key.y, key.x ^ key.y ^ 0x1bd11bdau);
  var turns = array<u32, 8>(13u, 15u, 26u, 6u, 17u, 29u, 16u, 24u);
  var x = counter + key;
  for (var i = 0u; i < 20u; i++) {
    x.x += x.y;
    let turn = turns[i & 7u];
    x.y = ((x.y << turn) | (x.y >> (32u - turn))) ^ x.x;
    if ((i & 3u) == 3u) {
      let g = i / 4u + 1u;
      x += vec2<u32>(keys[g % 3u], keys[(g + 1u) % 3u] + g);
    }
  }
  return x;
}`,
  },
  half: {
    args: ["u32", "u32"],
    result: "f32",
    text: `
// The f16 at element i, in the low or the high half of its word.
fn half(word: u32, i: u32) -> f32 {
  return unpack2x16float(word >> ((i & 1u) * 16u)).x;
}`,
  },
  halves: {
    args: ["vec2<u32>"],
    result: "vec4<f32>",
    text: `
// Four f16 in two words.
fn halves(words: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}`,
  },
  brain: {
    args: ["u32", "u32"],
    result: "f32",
    text: `
// The bf16 at element i, in the low or the high half of its word.
fn brain(word: u32, i: u32) -> f32 {
  return bitcast<f32>((word >> ((i & 1u) * 16u)) << 16u);
}`,
  },
  brains: {
    args: ["vec2<u32>"],
    result: "vec4<f32>",
    text: `
// Four bf16 in two words.
fn brains(words: vec2<u32>) -> vec4<f32> {
  let low = words << vec2<u32>(16u);
  let high = words & vec2<u32>(0xffff0000u);
  return bitcast<vec4<f32>>(vec4<u32>(low.x, high.x, low.y, high.y));
}`,
  },
  half_bits: {
    args: ["f32"],
    result: "u32",
    text: `
// The bits of the f16 nearest to x, ties to even.
fn half_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let sign = (bits >> 16u) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) { return sign | 0x7e00u; }
  if (size >= 0x477ff000u) { return sign | 0x7c00u; }
  if (size < 0x38800000u) {
    // Subnormal: a multiple of 2^-24, rounded by hand as shifts drop the ties.
    if (size < 0x33000000u) { return sign; }
    let shift = 126u - (size >> 23u);
    let mantissa = (size & 0x7fffffu) | 0x800000u;
    let kept = mantissa >> shift;
    let rest = mantissa & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    let up = rest > tie || (rest == tie && (kept & 1u) == 1u);
    return sign | (kept + select(0u, 1u, up));
  }
  let moved = size - 0x38000000u;
  return sign | ((moved + 0xfffu + ((moved >> 13u) & 1u)) >> 13u);
}`,
  },
  brain_bits: {
    args: ["f32"],
    result: "u32",
    text: `
// The bits of the bf16 nearest to x, ties to even.
fn brain_bits(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return (bits >> 16u) | 0x40u; }
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}`,
  },
};

/** The helpers one module uses, each once, callees first. */
export class HelperSet {
  readonly #texts = new Map<string, string>();

  /** Registers `name` and gives the name to call; with `width` 4 that of its form on four lanes. */
  use(name: HelperName, width: 1 | 4 = 1): string {
    const helper = helpers[name];
    helper.needs?.forEach((need) => this.use(need));
    if (!this.#texts.has(name)) this.#texts.set(name, helper.text);
    if (width === 1) return name;
    const wide = `${name}_4`;
    if (!this.#texts.has(wide)) this.#texts.set(wide, widen(name, helper));
    return wide;
  }

  /** The functions' texts. */
  print(): string[] {
    return [...this.#texts.values()].map((text) => `${text}\n`);
  }
}

/** The form of a helper that takes and gives four lanes. */
function widen(name: string, helper: Helper): string {
  const names = helper.args.map((_, i) => `x${i}`);
  const lanes = [..."xyzw"].map((lane) => `${name}(${names.map((n) => `${n}.${lane}`).join(", ")})`);
  const params = helper.args.map((type, i) => `x${i}: vec4<${type}>`).join(", ");
  return `
fn ${name}_4(${params}) -> vec4<${helper.result}> {
  return vec4<${helper.result}>(
    ${lanes.slice(0, 2).join(", ")},
    ${lanes.slice(2).join(", ")});
}`;
}
