/** Rotary position embedding in its rotate-half form. Source: Su et al. 2021, "RoFormer", section 3.2.2. */
import { formatAval } from "../aval.ts";
import { ShapeError } from "../errors.ts";
import { defineComposite } from "../ir/composite.ts";
import { bind1, type Primitive, Value } from "../ir/graph.ts";
import { showArgument } from "../ops/arguments.ts";
import { broadcastTo, reduceSum, reshape } from "../ops/broadcast.ts";
import { asValue } from "../ops/constant.ts";
import { add, convert, cos, eq, mul, neg, select, sin, sub } from "../ops/elementwise.ts";
import { concat, iota, slice, split } from "../ops/structure.ts";
import type { Operand } from "../tensor.ts";
import { vector } from "./vector.ts";

/**
 * One expression per element, so that one kernel makes it: each half of a head is written as x·cos plus the other half, with
 * its sign, times sin. A rotation's adjoint is the rotation back, so that nothing but the angles is saved.
 */
const ropePrim: Primitive<null> = defineComposite<null>({
  name: "rope",
  define: ([x, cosines, sines]) => {
    const [b, t, h, dh] = x.shape;
    const shape = [b, t, h, 2, dh / 2];
    const halves = reshape(x, shape);
    const half = (i: number) => broadcastTo(slice(halves, 3, i, i + 1), shape);
    const [c, s] = [cosines, sines].map((v) => broadcastTo(reshape(v, [b, t, 1, 1, dh / 2]), shape));
    const other = select(eq(iota(shape, 3), 0), neg(half(1)), half(0));
    return [reshape(add(mul(halves, c), mul(other, s)), x.shape)];
  },
  vjp: ({ cts: [ct], needs, inputs: [x, cosines, sines] }) => {
    if (!ct) return [null, null, null];
    const [a, b] = split(x, -1, 2);
    const [da, db] = split(ct, -1, 2);
    return [
      needs[0] ? bind1(ropePrim, [ct, cosines, neg(sines)], null) : null,
      needs[1] ? reduceSum(add(mul(a, da), mul(b, db)), 2) : null,
      needs[2] ? reduceSum(sub(mul(a, db), mul(b, da)), 2) : null,
    ];
  },
});

/**
 * Rotates the pairs (x[i], x[i + n]) of each head by the angles of its token: x f32[B,T,H,dh], cosines and sines f32[B,T,n]
 * (B may be 1), to f32[B,T,H,dh]. Where 2n is less than dh, the rest of each head stays as it is.
 *
 * @throws {ShapeError} when the angles are not of x's sizes
 */
export function rope(x: Operand, angles: { readonly cos: Operand; readonly sin: Operand }): Value {
  const value = asValue(x);
  const [b, t, , dh] = value.shape;
  if (value.shape.length !== 4) throw new ShapeError(`Cannot rotate ${formatAval(value.aval)}: it takes f32[B,T,H,dh]`);
  const [c, s] = [angles.cos, angles.sin].map((v) => {
    const given = asValue(v);
    if (given.shape.length !== 3 || given.shape[1] !== t || given.shape[2] * 2 > dh) {
      throw new ShapeError(
        `Cannot rotate ${formatAval(value.aval)} by angles of ${formatAval(given.aval)}: they are [${b},${t},${
          Math.floor(dh / 2)
        }] or fewer`,
      );
    }
    return broadcastTo(given, [b, t, given.shape[2]]);
  });
  const turned = 2 * c.shape[2];
  if (turned === dh) return bind1(ropePrim, [value, c, s], null);
  const first = bind1(ropePrim, [slice(value, 3, 0, turned), c, s], null);
  return concat([first, slice(value, 3, turned, dh)], 3);
}

/**
 * The cosines and sines f32[B,T,n] of position · frequency, in f32, for i32 positions [B,T] and n inverse frequencies
 * (radians per token): numbers, which are rounded to f32 first, or a value f32[n]. Both are multiplied by `magnitude`, 1 by
 * default.
 */
export function ropeAngles(
  positions: Operand,
  inverseFrequencies: ArrayLike<number> | Value,
  magnitude = 1,
): { cos: Value; sin: Value } {
  const at = convert(positions, "f32");
  const given = inverseFrequencies instanceof Value ? inverseFrequencies : frequenciesOf(inverseFrequencies);
  const shape = [...at.shape, given.shape[0]];
  const frequencies = broadcastTo(given, shape);
  const angle = mul(broadcastTo(reshape(at, [...at.shape, 1]), shape), frequencies);
  const scaled = (x: Value) => magnitude === 1 ? x : mul(x, magnitude);
  return { cos: scaled(cos(angle)), sin: scaled(sin(angle)) };
}

function frequenciesOf(numbers: ArrayLike<number>): Value {
  const list: unknown[] = Array.from(numbers ?? []);
  const wrong = list.findIndex((x) => typeof x !== "number");
  if (wrong >= 0) throw new ShapeError(`Cannot rotate by a frequency of ${showArgument(list[wrong])}: give numbers`);
  if (list.length === 0) throw new ShapeError("Cannot rotate by no frequencies: give at least one");
  return vector(list as number[]);
}
