import type { ScalarType } from "../../core/dtype.ts";
import type { HelperSet } from "./helpers.ts";

/** A WGSL literal of `type`. Infinity and NaN, which WGSL has no literals for, are read from the bits at run time. */
export function literal(type: ScalarType, value: number, helpers: HelperSet): string {
  switch (type) {
    case "bool":
      return value !== 0 ? "true" : "false";
    case "u32":
      return `${value >>> 0}u`;
    case "i32":
      return (value | 0) === -(2 ** 31) ? "(-2147483647i - 1i)" : `${value | 0}i`;
    case "f32":
      return floatLiteral(Math.fround(value), helpers);
  }
}

function floatLiteral(value: number, helpers: HelperSet): string {
  if (!Number.isFinite(value)) {
    const bits = Number.isNaN(value) ? "0x7fc00000u" : value > 0 ? "0x7f800000u" : "0xff800000u";
    return `${helpers.use("from_bits")}(${bits})`;
  }
  if (Object.is(value, -0)) return "-0.0";
  const text = shortest(value);
  return /[.e]/.test(text) ? text : `${text}.0`;
}

const maxF32 = 3.4028234663852886e38;

/** The fewest decimal digits that still name the f32 `value`. */
function shortest(value: number): string {
  for (let digits = 1; digits < 9; digits++) {
    const text = String(Number(value.toPrecision(digits)));
    // Browsers refuse a number beyond the greatest f32, though it would round to it.
    const names = Math.fround(Number(text)) === value && Math.abs(Number(text)) <= maxF32;
    if (names) return text.replace("e+", "e");
  }
  return String(value).replace("e+", "e");
}
