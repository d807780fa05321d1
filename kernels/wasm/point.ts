/**
 * Code for one point of a kernel, or for four neighbours along its lane axis at once. A single point runs the same vector
 * instructions with one lane in use, so a value has the same bits wherever the split into vectors falls.
 */
import { AxesOf, childrenOf, type Expr, rootsOf, type Store } from "../ir/expr.ts";
import type { Code, Local } from "./assembler.ts";
import { MathEmitter } from "./math.ts";
import { PointAccess, type Space } from "./point_access.ts";
import { emitScalar } from "./scalar.ts";
import { emitThreefry } from "./threefry.ts";

/** Emits expressions and stores of one kernel into its function. */
export class PointEmitter {
  readonly #space: Space;
  readonly #code: Code;
  readonly #math: MathEmitter;
  readonly #access: PointAccess;
  readonly #axes: AxesOf;
  #hoisted = new Map<Expr, Local>();
  #values = new Map<Expr, Local>();
  #uses = new Map<Expr, number>();
  #random: { args: readonly Expr[]; words: [Local, Local] }[] = [];
  #lanes: 1 | 4 = 4;

  constructor(space: Space) {
    this.#space = space;
    this.#code = space.code;
    this.#math = new MathEmitter(space.code, space.relaxed);
    this.#axes = new AxesOf(space.result?.axes);
    this.#access = new PointAccess(space, this.#axes, (expr) => this.#push(expr));
  }

  /** Emits, before the innermost loop, everything in `roots` and `stores` that does not vary along it. */
  hoist(roots: readonly Expr[], stores: readonly Store[], lanes: 1 | 4 = 4): void {
    this.#lanes = lanes;
    this.#beginPoint();
    const seen = new Set<Expr>();
    for (const root of roots) this.#hoist(root, seen);
    for (const store of stores) {
      rootsOf([store]).forEach((root) => this.#hoist(root, seen));
      this.#access.base(store.operand, store.index);
    }
    this.#endPoint();
  }

  /** Forgets what was hoisted: needed where loads may see other values than before. */
  forget(): void {
    this.#hoisted = new Map();
    this.#access.forget();
  }

  /** Computes `root` at the current point and leaves it on the stack. */
  push(root: Expr, lanes: 1 | 4): void {
    this.#lanes = lanes;
    this.#beginPoint();
    this.#count(root);
    this.#push(root);
    this.#endPoint();
  }

  /** Performs stores at the current point; every value is computed before the first is written. */
  store(stores: readonly Store[], lanes: 1 | 4): void {
    this.#lanes = lanes;
    this.#beginPoint();
    rootsOf(stores).forEach((root) => this.#count(root));
    const early = stores.length > 1 && this.#space.operands.some((o) => o.access === "inout");
    const values = stores.map((store) => {
      if (!early) return null;
      const local = this.#code.local("v128");
      this.#push(store.value);
      this.#code.set(local);
      return local;
    });
    stores.forEach(({ operand, index, value }, i) => {
      const ready = values[i];
      this.#access.store(operand, index, this.#lanes, () => ready === null ? this.#push(value) : this.#code.get(ready));
    });
    for (const local of values) if (local !== null) this.#code.release("v128", local);
    this.#endPoint();
  }

  #beginPoint(): void {
    this.#values = new Map();
    this.#uses = new Map();
    this.#random = [];
  }

  #endPoint(): void {
    this.#code.release("v128", ...this.#values.values(), ...this.#random.flatMap((r) => r.words));
    this.#values = new Map();
    this.#random = [];
  }

  #count(expr: Expr): void {
    const uses = this.#uses.get(expr) ?? 0;
    this.#uses.set(expr, uses + 1);
    if (uses > 0 || this.#hoisted.has(expr)) return;
    childrenOf(expr).forEach((child) => this.#count(child));
  }

  #hoist(expr: Expr, seen: Set<Expr>): void {
    if (seen.has(expr)) return;
    seen.add(expr);
    if (!this.#axes.varies(expr, this.#space.loopAxis)) {
      if (expr.kind === "const" || expr.kind === "result" || this.#hoisted.has(expr)) return;
      this.#count(expr);
      this.#push(expr);
      const local = this.#code.local("v128");
      this.#code.set(local);
      this.#hoisted.set(expr, local);
      return;
    }
    childrenOf(expr).forEach((child) => this.#hoist(child, seen));
    if (expr.kind === "load") this.#access.base(expr.operand, expr.index);
  }

  #push(expr: Expr): void {
    const code = this.#code;
    const ready = this.#hoisted.get(expr) ?? this.#values.get(expr);
    if (ready !== undefined) return void code.get(ready);
    this.#compute(expr);
    if ((this.#uses.get(expr) ?? 0) > 1 && expr.kind !== "const") {
      const local = code.local("v128");
      code.tee(local);
      this.#values.set(expr, local);
    }
  }

  #compute(expr: Expr): void {
    const code = this.#code;
    switch (expr.kind) {
      case "const":
        if (expr.type === "f32") code.f32x4(expr.value);
        else {
          const word = expr.type === "bool" ? (expr.value !== 0 ? -1 : 0) : expr.value | 0;
          code.i32x4(word, word, word, word);
        }
        return;
      case "axis": {
        this.#access.pushAxis(expr.axis);
        code.op("i32x4.splat");
        if (expr.axis === this.#space.laneAxis && this.#lanes === 4) code.i32x4(0, 1, 2, 3).op("i32x4.add");
        return;
      }
      case "load":
        return this.#access.load(expr.operand, expr.index, this.#lanes);
      case "result":
        return this.#space.result!.push(expr.phase, this.#lanes);
      case "threefry": {
        const [word0, word1] = this.#threefry(expr.args);
        code.get(expr.lane === 0 ? word0 : word1);
        return;
      }
      case "op": {
        const { op, args } = expr;
        if (op === "select") {
          this.#push(args[1]);
          this.#push(args[2]);
          this.#push(args[0]);
          code.op("v128.bitselect");
          return;
        }
        if ((op === "shl" || op === "shr") && args[1].kind === "const") {
          this.#push(args[0]);
          code.i32(args[1].value).op(op === "shl" ? "i32x4.shl" : expr.type === "i32" ? "i32x4.shr_s" : "i32x4.shr_u");
          return;
        }
        args.forEach((arg) => this.#push(arg));
        emitScalar(op, { code, math: this.#math, from: args[0].type, to: expr.type });
      }
    }
  }

  #threefry(args: readonly Expr[]): [Local, Local] {
    const known = this.#random.find((r) => r.args.every((arg, i) => arg === args[i]));
    if (known) return known.words;
    args.forEach((arg) => this.#push(arg));
    const words = emitThreefry(this.#code);
    this.#random.push({ args, words });
    return words;
  }
}
