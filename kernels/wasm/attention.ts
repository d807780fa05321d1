/** Attention, one query (or one key) at a time, vectors along the width. */
import type { AttentionKernel, HeadLayout } from "../kernel.ts";
import type { Local } from "./assembler.ts";
import { type EmitOptions, type EmittedKernel, KernelFrame, pointsPerCall } from "./frame.ts";
import { MathEmitter } from "./math.ts";

export function emitAttention(kernel: AttentionKernel, options: EmitOptions): EmittedKernel {
  const emitter = new AttentionEmitter(kernel, options);
  return kernel.pass === "backward-kv" ? emitter.backwardKeys() : emitter.queries();
}

class AttentionEmitter {
  readonly #frame: KernelFrame;
  readonly #math: MathEmitter;

  constructor(readonly kernel: AttentionKernel, options: EmitOptions) {
    this.#frame = new KernelFrame(kernel.operands, options);
    this.#math = new MathEmitter(this.#frame.code, options.relaxed);
  }

  /** Forward, or the gradient of q: a unit is one (batch, head, query). */
  queries(): EmittedKernel {
    const { kernel } = this;
    const { batch, heads, queries, keys, width, pass } = kernel;
    const { code, unit, pointers, scratch } = this.#frame;
    this.#frame.eachUnit(() => {
      const [b, h, i] = this.#frame.unflatten(unit, [batch, heads, queries]);
      const g = this.#keyHead(h);
      const q = this.#row(0, b, i, h), k = this.#row(1, b, null, g), v = this.#row(2, b, null, g);
      const [j, end, maskAt] = [code.local("i32"), this.#lastKey(i), code.local("i32")];
      code.get(pointers[3]).get(b).i32(keys * 4).op("i32.mul", "i32.add").set(maskAt);
      const eachKey = (body: () => void) => {
        code.i32(0).set(j);
        code.loopUpTo(j, end, 1, () => {
          code.get(maskAt).get(j).i32(4).op("i32.mul", "i32.add").memory("i32.load").when(body);
        });
      };
      const score = code.local("v128"), weight = code.local("v128");
      if (pass === "forward") {
        const out = this.#row(5, b, i, h);
        const most = code.local("v128"), total = code.local("v128");
        code.f32x4(-Infinity).set(most);
        eachKey(() => {
          this.#dot(q, this.#at(k, j, 1), width);
          code.f32x4(kernel.scale).op("f32x4.mul").set(score);
          code.get(scratch).get(j).i32(4).op("i32.mul", "i32.add").get(score).laneMemory("v128.store32_lane", 0);
          code.get(most).get(score).op("f32x4.pmax").set(most);
        });
        this.#zero(out, width);
        code.f32x4(0).set(total);
        eachKey(() => {
          code.get(scratch).get(j).i32(4).op("i32.mul", "i32.add").memory("v128.load32_splat");
          code.get(most).op("f32x4.sub");
          this.#math.exp();
          code.tee(weight).get(total).op("f32x4.add").set(total);
          this.#addScaled(out, weight, this.#at(v, j, 2), width);
        });
        // A query that saw no key has total 0: zeros, and 0 for its log-sum-exp.
        const seen = code.local("v128"), lse = this.#statistic(6, b, h, i);
        code.get(total).f32x4(0).op("f32x4.gt").set(seen);
        code.f32x4(1).get(total).op("f32x4.div").get(seen).op("v128.and").set(weight);
        this.#scale(out, weight, width);
        code.get(lse).get(total);
        this.#math.log();
        code.get(most).op("f32x4.add").get(seen).op("v128.and").laneMemory("v128.store32_lane", 0);
      } else {
        const dout = this.#row(5, b, i, h), dq = this.#row(8, b, i, h);
        const lse = this.#statistic(6, b, h, i), delta = this.#statistic(7, b, h, i);
        this.#zero(dq, width);
        eachKey(() => {
          this.#weight(q, this.#at(k, j, 1), lse, weight);
          this.#scoreGradient(dout, this.#at(v, j, 2), delta, weight, score);
          this.#addScaled(dq, score, this.#at(k, j, 1), width);
        });
      }
    });
    return this.#frame.finish(batch * heads * queries, pointsPerCall / (keys * width), keys * 4);
  }

  /** The gradients of k and v: a unit is one (batch, key/value head, key). */
  backwardKeys(): EmittedKernel {
    const { kernel } = this;
    const { batch, heads, kvHeads, queries, keys, width } = kernel;
    const { code, unit, pointers } = this.#frame;
    const group = heads / kvHeads;
    this.#frame.eachUnit(() => {
      const [b, g, j] = this.#frame.unflatten(unit, [batch, kvHeads, keys]);
      const k = this.#row(1, b, j, g), v = this.#row(2, b, j, g);
      const dk = this.#row(8, b, j, g), dv = this.#row(9, b, j, g);
      const i = code.local("i32"), h = code.local("i32"), end = code.local("i32");
      const weight = code.local("v128"), gradient = code.local("v128");
      this.#zero(dk, width);
      this.#zero(dv, width);
      code.get(pointers[3]).get(b).i32(keys).op("i32.mul").get(j).op("i32.add").i32(4).op("i32.mul", "i32.add");
      code.memory("i32.load").when(() => {
        code.get(g).i32(group).op("i32.mul").tee(h).i32(group).op("i32.add").set(end);
        code.loopUpTo(h, end, 1, () => {
          // The first query that sees key j.
          code.i32(0).set(i);
          if (kernel.causal) {
            code.get(j).get(pointers[4]).memory("i32.load").op("i32.sub").tee(i).i32(0).get(i).i32(0).op("i32.gt_s");
            code.op("select").set(i);
          }
          code.loopUpTo(i, { constant: queries }, 1, () => {
            const q = this.#row(0, b, i, h), dout = this.#row(5, b, i, h);
            this.#weight(q, k, this.#statistic(6, b, h, i), weight);
            this.#addScaled(dv, weight, dout, width);
            this.#scoreGradient(dout, v, this.#statistic(7, b, h, i), weight, gradient);
            this.#addScaled(dk, gradient, q, width);
          });
        });
      });
    });
    return this.#frame.finish(batch * kvHeads * keys, pointsPerCall / (queries * group * width));
  }

  #keyHead(h: Local): Local {
    const local = this.#frame.code.local("i32");
    this.#frame.code.get(h).i32(this.kernel.heads / this.kernel.kvHeads).op("i32.div_u").set(local);
    return local;
  }

  /** One past the last key that query i may see. */
  #lastKey(i: Local): Local {
    const { code, pointers } = this.#frame;
    const end = code.local("i32"), keys = this.kernel.keys;
    code.i32(keys).set(end);
    if (this.kernel.causal) {
      code.get(pointers[4]).memory("i32.load").get(i).op("i32.add").i32(1).op("i32.add").tee(end);
      code.i32(keys).get(end).i32(keys).op("i32.lt_s", "select").set(end);
    }
    return end;
  }

  /** The address of a row of a [batch, token, head, width] operand; of token 0 when `token` is null. */
  #row(operand: number, b: Local, token: Local | null, h: Local): Local {
    const { code, pointers } = this.#frame;
    const layout: HeadLayout = this.kernel.layouts[operand]!;
    const local = code.local("i32");
    code.get(pointers[operand]).i32(layout.offset * 4).op("i32.add");
    code.get(b).i32(layout.batch * 4).op("i32.mul", "i32.add");
    if (token !== null) code.get(token).i32(layout.token * 4).op("i32.mul", "i32.add");
    code.get(h).i32(layout.head * 4).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** Token `j` of the row address `base` of an operand. */
  #at(base: Local, j: Local, operand: number): Local {
    const { code } = this.#frame;
    const local = code.local("i32");
    code.get(base).get(j).i32(this.kernel.layouts[operand]!.token * 4).op("i32.mul", "i32.add").set(local);
    return local;
  }

  /** The address of element [b, h, i] of a statistic. */
  #statistic(operand: number, b: Local, h: Local, i: Local): Local {
    const { code, pointers } = this.#frame;
    const local = code.local("i32");
    code.get(b).i32(this.kernel.heads).op("i32.mul").get(h).op("i32.add").i32(this.kernel.queries).op("i32.mul");
    code.get(i).op("i32.add").i32(4).op("i32.mul").get(pointers[operand]).op("i32.add").set(local);
    return local;
  }

  /** weight = exp(scale·q·k - lse). */
  #weight(q: Local, k: Local, lse: Local, weight: Local): void {
    const { code } = this.#frame;
    this.#dot(q, k, this.kernel.width);
    code.f32x4(this.kernel.scale).op("f32x4.mul").get(lse).memory("v128.load32_splat").op("f32x4.sub");
    this.#math.exp();
    code.set(weight);
  }

  /** gradient = weight·(dout·v - delta)·scale. */
  #scoreGradient(dout: Local, v: Local, delta: Local, weight: Local, gradient: Local): void {
    const { code } = this.#frame;
    this.#dot(dout, v, this.kernel.width);
    code.get(delta).memory("v128.load32_splat").op("f32x4.sub").get(weight).op("f32x4.mul");
    code.f32x4(this.kernel.scale).op("f32x4.mul").set(gradient);
  }

  /** Calls `body` for each group of lanes of a row with the group's byte offset in `at`. */
  #eachGroup(width: number, body: (at: Local, lanes: 1 | 4) => void): void {
    const { code } = this.#frame;
    const at = code.local("i32");
    code.i32(0).set(at);
    const end = { constant: width * 4 };
    if (width >= 4) code.loopUpTo(at, end, 16, () => body(at, 4));
    if (width % 4 !== 0) code.loopUpTo(at, end, 4, () => body(at, 1));
    code.release("i32", at);
  }

  #load(base: Local, at: Local, lanes: 1 | 4): void {
    this.#frame.code.get(base).get(at).op("i32.add").memory(lanes === 4 ? "v128.load" : "v128.load32_zero");
  }

  /** Pushes the inner product of two rows in every lane. */
  #dot(x: Local, y: Local, width: number): void {
    const { code } = this.#frame;
    const sum = code.local("v128");
    code.f32x4(0).set(sum);
    this.#eachGroup(width, (at, lanes) => {
      if (!this.#math.relaxed) code.get(sum);
      this.#load(x, at, lanes);
      this.#load(y, at, lanes);
      if (this.#math.relaxed) code.get(sum).op("f32x4.relaxed_madd").set(sum);
      else code.op("f32x4.mul", "f32x4.add").set(sum);
    });
    code.get(sum).get(sum).get(sum).shuffle(2, 3, 0, 1).op("f32x4.add").set(sum);
    code.get(sum).get(sum).get(sum).shuffle(1, 0, 3, 2).op("f32x4.add");
    code.release("v128", sum);
  }

  /** into += factor·x, along a row. */
  #addScaled(into: Local, factor: Local, x: Local, width: number): void {
    const { code } = this.#frame;
    this.#eachGroup(width, (at, lanes) => {
      code.get(into).get(at).op("i32.add");
      this.#load(x, at, lanes);
      code.get(factor);
      this.#math.multiplyAdd(() => this.#load(into, at, lanes));
      this.#storeGroup(lanes);
    });
  }

  #scale(row: Local, factor: Local, width: number): void {
    const { code } = this.#frame;
    this.#eachGroup(width, (at, lanes) => {
      code.get(row).get(at).op("i32.add");
      this.#load(row, at, lanes);
      code.get(factor).op("f32x4.mul");
      this.#storeGroup(lanes);
    });
  }

  #zero(row: Local, width: number): void {
    this.#frame.code.get(row).i32(0).i32(width * 4).fill();
  }

  #storeGroup(lanes: 1 | 4): void {
    if (lanes === 4) this.#frame.code.memory("v128.store");
    else this.#frame.code.laneMemory("v128.store32_lane", 0);
  }
}
