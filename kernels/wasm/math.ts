/**
 * Elementary functions on four f32 lanes, written out inline as polynomials. Each takes the vector on top of the stack
 * and leaves its result there. Coefficients are minimax fits made for this file. Errors measured over the stated ranges
 * are asserted in math_test.ts:
 *
 * | function | error | range and edges |
 * |---|---|---|
 * | exp | 2 ulp | results under 2^-126 are 0; above the f32 range infinity |
 * | log | 2 ulp | subnormals too; log 0 = -infinity, negative gives NaN |
 * | tanh | 4 ulp, 1.5e-7 absolute | all |
 * | erf | 4 ulp, 1.5e-7 absolute | all |
 * | sin, cos | 1.5e-7 absolute | magnitude to 1e6: the argument is reduced in f64 |
 * | pow | 1 ulp | computed in f64; negative bases take integer exponents |
 */
import type { Code, Local } from "./assembler.ts";

/** Emits elementary functions into one function body. */
export class MathEmitter {
  /** `relaxed`: use the fused multiply-add of relaxed SIMD. */
  constructor(readonly code: Code, readonly relaxed: boolean) {}

  /** With a and b on the stack and c pushed by `addend`: a·b + c. */
  multiplyAdd(addend: () => void): void {
    if (!this.relaxed) this.code.op("f32x4.mul");
    addend();
    this.code.op(this.relaxed ? "f32x4.relaxed_madd" : "f32x4.add");
  }

  exp(): void {
    const { code } = this;
    this.#with(4, (x, t, r, p) => {
      code.set(x);
      this.#expParts(x, t, r);
      code.f32x4(1).op("f32x4.add");
      // 2^n goes straight into the exponent bits; what that breaks at both ends of the range, and of NaN, is replaced.
      code.get(t).i32(23).op("i32x4.shl", "i32x4.add").set(p);
      code.f32x4(Infinity).get(p).get(x).f32x4(88.72283172607422).op("f32x4.gt", "v128.bitselect");
      code.get(x).f32x4(-87.33654).op("f32x4.lt", "v128.andnot").get(x).get(x).op("f32x4.ne", "v128.or");
    });
  }

  /** Pushes e^r - 1, where x = n ln 2 + r, and leaves n in the low bits of `t`. */
  #expParts(x: Local, t: Local, r: Local): void {
    const { code } = this;
    // Added to 1.5·2^23, a number is rounded to an integer, which is then in the low bits.
    const rounder = 3 * 2 ** 22;
    code.get(x).f32x4(Math.LOG2E);
    this.multiplyAdd(() => code.f32x4(rounder));
    // r = x - n ln 2, ln 2 in two parts whose first has few enough bits for n times it to be exact.
    code.tee(t).f32x4(rounder).op("f32x4.sub").tee(r).f32x4(-0.693359375);
    this.multiplyAdd(() => code.get(x));
    const high = code.local("v128");
    code.set(high).get(r).f32x4(0.693359375 - Math.LN2);
    this.multiplyAdd(() => code.get(high));
    code.set(r);
    code.release("v128", high);
    this.#polynomial(r, [0.5, 0.166665181517601, 0.04166620597243309, 0.008368954062461853, 0.0013950599823147058]);
    code.get(r).get(r).op("f32x4.mul");
    this.multiplyAdd(() => code.get(r));
  }

  log(): void {
    const { code } = this;
    this.#with(5, (x, e, f, z, s) => {
      code.tee(x).f32x4(2 ** 23).op("f32x4.mul").get(x).get(x).f32x4(2 ** -126).op("f32x4.lt").tee(s);
      code.op("v128.bitselect").tee(f);
      // e = exponent such that the mantissa lies in [√½, √2).
      code.i32x4(...four(0x3f3504f3)).op("i32x4.sub").i32(23).op("i32x4.shr_s").tee(e);
      code.i32(23).op("i32x4.shl").set(z).get(f).get(z).op("i32x4.sub").f32x4(1).op("f32x4.sub").set(f);
      code.get(e).get(s).i32x4(...four(23)).op("v128.and", "i32x4.sub", "f32x4.convert_i32x4_s").set(e);
      code.get(f).get(f).op("f32x4.mul").set(z);
      // log = e ln2_hi + (f + (e ln2_lo - z/2 + f z P(f)))
      this.#polynomial(f, [
        0.3333331048488617,
        -0.24999986588954926,
        0.20002226531505585,
        -0.16669251024723053,
        0.14218658208847046,
        -0.1238434836268425,
        0.11872976273298264,
        -0.11789807677268982,
        0.06915368139743805,
      ]);
      code.get(f).get(z).op("f32x4.mul", "f32x4.mul").get(z).f32x4(0.5).op("f32x4.mul", "f32x4.sub").set(s);
      code.get(e).f32x4(Math.LN2 - 0.693359375);
      this.multiplyAdd(() => code.get(s));
      code.get(f).op("f32x4.add").set(s);
      code.get(e).f32x4(0.693359375);
      this.multiplyAdd(() => code.get(s));
      code.set(s);
      // Edges: NaN and infinity stay, zero gives -infinity, below zero NaN.
      code.f32x4(-Infinity).get(s).get(x).f32x4(0).op("f32x4.eq", "v128.bitselect").set(s);
      code.get(x).get(s).get(x).f32x4(Infinity).op("f32x4.lt", "v128.not", "v128.bitselect");
      code.get(x).f32x4(0).op("f32x4.lt", "v128.or");
    });
  }

  /** (e^2a - 1) / (e^2a + 1) with the sign of x, and e^2a - 1 = 2^n (e^r - 1) + (2^n - 1), which loses nothing near 0. */
  tanh(): void {
    const { code } = this;
    this.#with(4, (x, a, t, r) => {
      // From there on it rounds to 1. pmin keeps NaN.
      code.tee(x).op("f32x4.abs").f32x4(9.5).op("f32x4.pmin").f32x4(2).op("f32x4.mul").set(a);
      this.#expParts(a, t, r);
      code.get(t).i32(23).op("i32x4.shl").f32x4(1).op("i32x4.add").tee(t);
      this.multiplyAdd(() => code.get(t).f32x4(1).op("f32x4.sub"));
      code.tee(a).get(a).f32x4(2).op("f32x4.add", "f32x4.div");
      code.get(x).i32x4(...four(-0x80000000)).op("v128.and", "v128.or");
    });
  }

  erf(): void {
    const { code } = this;
    this.#with(4, (x, a, z, small) => {
      code.tee(x).op("f32x4.abs").f32x4(4.1).op("f32x4.pmin").set(a).get(x).get(x).op("f32x4.mul").set(z);
      this.#polynomial(z, [
        1.1283791065216064,
        -0.3761262595653534,
        0.1128358542919159,
        -0.026853810995817184,
        0.005188327748328447,
        -0.0008010192541405559,
        7.853857823647559e-05,
      ]);
      code.get(x).op("f32x4.mul").set(small);
      // 1 - exp(log erfc a), the logarithm as a polynomial.
      code.f32x4(1);
      this.#polynomial(a, [
        0.00018344413547310978,
        -1.1295567750930786,
        -0.6332626342773438,
        -0.10837247967720032,
        0.02517896704375744,
        -0.004193610977381468,
        0.0004391063703224063,
        -2.149611282220576e-05,
      ]);
      this.exp();
      code.op("f32x4.sub").get(x).i32x4(...four(-0x80000000)).op("v128.and", "v128.or").set(z);
      code.get(small).get(z).get(a).f32x4(1).op("f32x4.lt", "v128.bitselect").set(z);
      this.#keepNaN(x, z);
    });
  }

  sin(): void {
    this.#sinusoid(0);
  }

  cos(): void {
    this.#sinusoid(1);
  }

  /** x^y with x under y on the stack, through log and exp in f64, two lanes at a time. */
  pow(): void {
    const { code } = this;
    this.#with(5, (x, y, a, half, result) => {
      code.set(y).tee(x).op("f32x4.abs").set(a);
      this.#halves(a, half, (v) => {
        this.#log64(v);
        code.get(y);
        if (v === half) code.get(y).shuffle(2, 3, 2, 3);
        code.op("f64x2.promote_low_f32x4", "f64x2.mul");
        this.#exp64();
      }, result);
      // 0 and infinity to a power.
      code.f32x4(0).f32x4(Infinity).get(a).f32x4(1).op("f32x4.lt").get(y).f32x4(0).op("f32x4.lt", "v128.xor");
      code.op("v128.bitselect").get(result);
      code.get(a).f32x4(0).op("f32x4.eq").get(a).f32x4(Infinity).op("f32x4.eq", "v128.or", "v128.bitselect");
      // A negative base: the sign of an odd integer exponent, NaN for a fraction.
      code.get(y).f32x4(0.5).op("f32x4.mul").tee(half).op("f32x4.floor").get(half).op("f32x4.ne");
      code.get(y).op("f32x4.floor").get(y).op("f32x4.ne").tee(half).op("v128.andnot");
      code.i32x4(...four(-0x80000000)).op("v128.and").get(x).op("v128.and", "v128.or").get(half).get(x).f32x4(0).op(
        "f32x4.lt",
        "v128.and",
      );
      code.get(a).f32x4(Infinity).op("f32x4.lt", "v128.and", "v128.or");
      code.get(x).get(x).op("f32x4.ne").get(y).get(y).op("f32x4.ne", "v128.or", "v128.or").set(result);
      // x^0 and 1^y are 1 whatever the other is, and so is -1 to an infinite power.
      code.f32x4(1).get(result).get(y).f32x4(0).op("f32x4.eq").get(x).f32x4(1).op("f32x4.eq", "v128.or");
      code.get(a).f32x4(1).op("f32x4.eq").get(y).op("f32x4.abs").f32x4(Infinity).op("f32x4.eq", "v128.and", "v128.or");
      code.op("v128.bitselect");
    });
  }

  /** sin of x + quarter·π/2. */
  #sinusoid(quarter: number): void {
    const { code } = this;
    this.#with(6, (x, half, r, n, z, sine) => {
      code.set(x);
      const reduce = (v: Local, quadrants: Local) => {
        code.get(v).op("f64x2.promote_low_f32x4").set(z).get(z).f64x2(2 / Math.PI).op("f64x2.mul", "f64x2.nearest");
        code.tee(sine).op("i32x4.trunc_sat_f64x2_s_zero").set(quadrants);
        // π/2 in two f64 parts: the second keeps large arguments exact where the first's product rounds.
        code.get(z).get(sine).f64x2(Math.PI / 2).op("f64x2.mul", "f64x2.sub");
        code.get(sine).f64x2(6.123233995736766e-17).op("f64x2.mul", "f64x2.sub", "f32x4.demote_f64x2_zero");
      };
      code.get(x).get(x).shuffle(2, 3, 2, 3).set(half);
      reduce(x, n);
      code.set(r);
      const high = code.local("v128");
      reduce(half, high);
      code.set(half).get(r).get(half).shuffle(0, 1, 4, 5).set(r).get(n).get(high).shuffle(0, 1, 4, 5);
      if (quarter) code.i32x4(...four(quarter)).op("i32x4.add");
      code.set(n).get(r).get(r).op("f32x4.mul").set(z);
      code.release("v128", high);
      this.#polynomial(z, [-0.1666666716337204, 0.008333329111337662, -0.00019839327433146536, 2.71823728326126e-06]);
      code.get(r).get(z).op("f32x4.mul");
      this.multiplyAdd(() => code.get(r));
      code.set(sine);
      this.#polynomial(z, [0.04166664555668831, -0.001388736185617745, 2.4437729734927416e-05]);
      code.get(z).get(z).op("f32x4.mul").f32x4(1).get(z).f32x4(0.5).op("f32x4.mul", "f32x4.sub").set(half);
      this.multiplyAdd(() => code.get(half));
      code.get(sine).get(n).i32(31).op("i32x4.shl").i32(31).op("i32x4.shr_s", "v128.bitselect");
      code.get(n).i32(30).op("i32x4.shl").i32x4(...four(-0x80000000)).op("v128.and", "v128.xor");
      // The sine of -0 is -0, whose sign the reduction lost.
      if (!quarter) code.set(sine).get(x).get(sine).get(x).f32x4(0).op("f32x4.eq", "v128.bitselect");
    });
  }

  /** Both halves of `a` widened to f64, `body` applied, narrowed and joined into `result`. */
  #halves(a: Local, half: Local, body: (v: Local) => void, result: Local): void {
    const { code } = this;
    body(a);
    code.op("f32x4.demote_f64x2_zero").set(result);
    code.get(a).get(a).shuffle(2, 3, 2, 3).set(half);
    body(half);
    code.op("f32x4.demote_f64x2_zero").set(half).get(result).get(half).shuffle(0, 1, 4, 5).set(result);
  }

  /** Natural logarithm of the two low f32 lanes of `v` (positive) as f64: atanh series about 1. */
  #log64(v: Local): void {
    const { code } = this;
    this.#with(4, (x, e, s, z) => {
      code.get(v).op("f64x2.promote_low_f32x4").tee(x);
      code.i32x4(0, 0x3fe6a09e, 0, 0x3fe6a09e).op("i64x2.sub").i32(20 + 32).op("i64x2.shr_s").tee(e);
      code.i32(52).op("i64x2.shl").set(s).get(x).get(s).op("i64x2.sub").tee(x);
      code.f64x2(1).op("f64x2.sub").get(x).f64x2(1).op("f64x2.add", "f64x2.div").tee(s).get(s).op("f64x2.mul").set(z);
      this.#polynomial64(z, [1, 1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13, 1 / 15, 1 / 17]);
      code.get(s).op("f64x2.mul").f64x2(2).op("f64x2.mul");
      code.get(e).get(e).shuffle(0, 2, 0, 2).op("f64x2.convert_low_i32x4_s").f64x2(Math.LN2).op(
        "f64x2.mul",
        "f64x2.add",
      );
    });
  }

  /** exp of two f64 lanes, of a magnitude that f32 can take. */
  #exp64(): void {
    const { code } = this;
    this.#with(2, (x, n) => {
      code.f64x2(-200).op("f64x2.max").f64x2(200).op("f64x2.min").tee(x);
      code.f64x2(Math.LOG2E).op("f64x2.mul", "f64x2.nearest").set(n);
      code.get(x).get(n).f64x2(Math.LN2).op("f64x2.mul", "f64x2.sub").set(x);
      const terms = [1];
      for (let i = 1; i < 12; i++) terms.push(terms[i - 1] / i);
      this.#polynomial64(x, terms);
      code.get(n).f64x2(2 ** 52 + 2 ** 51).op("f64x2.add").i32(52).op("i64x2.shl", "i64x2.add");
    });
  }

  #keepNaN(x: Local, value: Local): void {
    this.code.get(x).get(value).get(x).get(x).op("f32x4.ne", "v128.bitselect");
  }

  /** Σ coefficients[i]·x^i by Horner's rule. */
  #polynomial(x: Local, coefficients: readonly number[]): void {
    const { code } = this;
    code.f32x4(coefficients[coefficients.length - 1]);
    for (let i = coefficients.length - 2; i >= 0; i--) {
      code.get(x);
      this.multiplyAdd(() => code.f32x4(coefficients[i]));
    }
  }

  #polynomial64(x: Local, coefficients: readonly number[]): void {
    const { code } = this;
    code.f64x2(coefficients[coefficients.length - 1]);
    for (let i = coefficients.length - 2; i >= 0; i--) {
      code.get(x).op("f64x2.mul").f64x2(coefficients[i]).op("f64x2.add");
    }
  }

  /** Lends `count` vector locals to `body`. */
  #with(count: number, body: (...locals: Local[]) => void): void {
    const locals = Array.from({ length: count }, () => this.code.local("v128"));
    body(...locals);
    this.code.release("v128", ...locals);
  }
}

function four(x: number): [number, number, number, number] {
  return [x, x, x, x];
}
