import { isHalfWord, readElement, readWide, reread } from "./access.ts";
import { countUses, type Expr, type Index, rootsOf, type Store, variesAlong } from "../ir/expr.ts";
import { literal } from "./literal.ts";
import { laneOf, scalarRules, splat, type Term, term, typeName, type Width } from "./scalar.ts";
import type { ShaderWriter } from "./shader.ts";

/** The iteration axes as the emitted code names them. All names are u32 atoms. */
export interface AxisNames {
  /** Axis i, or of the vector axis the first of the four elements. */
  readonly axes: readonly string[];
  /** The axis four of whose elements are computed side by side, and its counter in steps of four. */
  readonly vector?: { readonly axis: number; readonly quarter: string };
  /** An index that matches is just this name (in steps of four when there is a vector axis). */
  readonly flat?: { readonly name: string; matches(index: Index): boolean };
  /** The values that `result` expressions stand for. */
  readonly results?: ReadonlyMap<number, Term>;
  /** The scope around this one, and what is computed there, once, because it is the same at every point of this one. */
  readonly outer?: { readonly scope: Scope; owns(expr: Expr): boolean };
}

/** Longest expression that is left inside another. */
const inlineLimit = 36;

/** Writes expressions and stores at one point, or at four neighbouring points of a vector axis. */
export class Scope {
  readonly #terms = new Map<Expr, Term>();
  #texts = new Map<string, string>();
  #uses: ReadonlyMap<Expr, number>;

  /** `uses` tells how often expressions are read, where more is known of it than `value` and `store` see at once. */
  constructor(readonly shader: ShaderWriter, readonly names: AxisNames, uses?: ReadonlyMap<Expr, number>) {
    this.#uses = uses ?? new Map();
  }

  /** The value of `expr`, under a name of its own if it is computed. */
  named(expr: Expr): Term {
    const made = this.value(expr);
    if (made.atom) return made;
    const bound = this.#bind(made);
    this.#terms.set(expr, bound);
    return bound;
  }

  /** The value of `expr`; each expression object is computed once. */
  value(expr: Expr): Term {
    const known = this.#terms.get(expr);
    if (known) return known;
    const { outer } = this.names;
    if (outer?.owns(expr)) return outer.scope.named(expr);
    if (!this.#uses.has(expr)) this.#uses = new Map([...this.#uses, ...countUses([expr])]);
    let made = this.#make(expr);
    const often = this.#uses.get(expr)! > 1;
    if (expr.kind === "load" || (!made.atom && often) || made.text.length > inlineLimit) made = this.#bind(made);
    this.#terms.set(expr, made);
    return made;
  }

  /**
   * Performs stores: all values are computed before the first write, as an operand may be read and written. The writes,
   * but not the values, stand behind `guard`.
   */
  store(stores: readonly Store[], guard?: string): void {
    if (this.#uses.size === 0) this.#uses = countUses(rootsOf(stores));
    const values = stores.map((store) => this.value(store.value));
    const write = () => stores.forEach((store, i) => this.#write(store, values[i]));
    if (guard === undefined) return write();
    // Names that are bound behind the guard end there.
    const texts = new Map(this.#texts);
    this.shader.block(guard, write);
    this.#texts = texts;
  }

  #make(expr: Expr): Term {
    switch (expr.kind) {
      case "const":
        return term(literal(expr.type, expr.value, this.shader.helpers), expr.type);
      case "axis":
        return this.#axis(expr.axis);
      case "load":
        return this.#load(expr.operand, expr.index);
      case "result": {
        const result = this.names.results?.get(expr.phase);
        if (!result) throw new Error(`phase ${expr.phase} has no result yet`);
        return result;
      }
      case "threefry":
        return this.#threefry(expr.args.map((arg) => this.value(arg)), expr.lane);
      case "op": {
        const args = expr.args.map((arg) => this.value(arg));
        const width = args.some((arg) => arg.width === 4) ? 4 : 1;
        return scalarRules[expr.op](args, { type: expr.type, width, helpers: this.shader.helpers });
      }
    }
  }

  /** Gives a value a name, unless this very text has one. */
  #bind(made: Term): Term {
    let name = this.#texts.get(made.text);
    if (name === undefined) {
      name = this.shader.fresh();
      this.shader.line(`let ${name} = ${made.text};`);
      this.#texts.set(made.text, name);
    }
    return { ...made, text: name, atom: true };
  }

  #axis(axis: number): Term {
    const first = term(`i32(${this.names.axes[axis]})`, "i32");
    if (axis !== this.names.vector?.axis) return first;
    return { text: `${splat(first).text} + vec4<i32>(0, 1, 2, 3)`, type: "i32", width: 4, atom: false };
  }

  #threefry(args: readonly Term[], lane: number): Term {
    this.shader.helpers.use("threefry");
    const width = args.some((arg) => arg.width === 4) ? 4 : 1;
    const words = Array.from({ length: width }, (_, i) => {
      const [k0, k1, c0, c1] = args.map((arg) => laneOf(arg, i).text);
      const both = `threefry(vec2<u32>(${k0}, ${k1}), vec2<u32>(${c0}, ${c1}))`;
      return `${this.#bind(term(both, "u32")).text}.${"xy"[lane]}`;
    });
    if (width === 1) return term(words[0], "u32");
    return { text: `vec4<u32>(${words.join(", ")})`, type: "u32", width, atom: true };
  }

  #load(operand: number, index: Index): Term {
    if (this.shader.binding(operand).wide) return readWide(this.shader, operand, this.index(index, 4));
    const { vector } = this.names;
    const varies = vector !== undefined &&
      ((index.strides[vector.axis] ?? 0) !== 0 ||
        (index.dynamic ?? []).some((part) => variesAlong(part.value, vector.axis)));
    const element = (lane: number) => {
      const at = this.index(index, 1, lane);
      const named = isHalfWord(this.shader, operand) && !/^\w+$/.test(at);
      const position = named ? this.#bind({ text: at, type: "u32", width: 1, atom: false }).text : at;
      return readElement(this.shader, operand, position);
    };
    if (!varies) return element(0);
    const lanes = [0, 1, 2, 3].map(element);
    const { type } = lanes[0];
    return { text: `vec4<${type}>(${lanes.map(({ text }) => text).join(", ")})`, type, width: 4, atom: true };
  }

  /**
   * The text of an index in steps of `unit` elements. `lane` is added along the vector axis, when the index is asked for
   * element by element.
   */
  index(index: Index, unit: Width, lane = 0): string {
    const { axes, vector, flat } = this.names;
    if (flat && unit === (vector ? 4 : 1) && flat.matches(index)) return flat.name;
    const terms: string[] = [];
    const add = (text: string, stride: number) => {
      if (stride === 0 || text === "0u") return;
      const product = Math.abs(stride) === 1 ? text : `${text} * ${Math.abs(stride)}u`;
      terms.push(stride < 0 ? ` - ${product}` : terms.length > 0 ? ` + ${product}` : product);
    };
    let offset = index.offset / unit;
    index.strides.forEach((stride, i) => {
      if (i !== vector?.axis) return add(axes[i], stride / unit);
      if (unit === 4) return add(vector.quarter, 1);
      offset += lane * stride;
      add(axes[i], stride);
    });
    for (const { value, stride } of index.dynamic ?? []) {
      add(`u32(${laneOf(this.value(value), lane).text})`, stride / unit);
    }
    if (terms[0]?.startsWith(" - ")) return `${offset}u${terms.join("")}`;
    if (offset !== 0 || terms.length === 0) terms.push(`${terms.length > 0 ? " + " : ""}${offset}u`);
    return terms.join("");
  }

  #write({ operand, index }: Store, value: Term): void {
    const { dtype } = this.shader.operands[operand];
    const { wide } = this.shader.binding(operand);
    if (wide) {
      const at = this.index(index, 4);
      this.shader.line(this.shader.write(operand, at, this.#narrow(splat(value), operand)));
      return;
    }
    const { vector } = this.names;
    for (let lane = 0; lane < (vector ? 4 : 1); lane++) {
      if (dtype === "f16" || dtype === "bf16") {
        const at = this.#bind({ text: this.index(index, 1, lane), type: "u32", width: 1, atom: false }).text;
        const bits = this.shader.helpers.use(dtype === "f16" ? "half_bits" : "brain_bits");
        this.shader.line(this.shader.writeHalf(operand, at, `${bits}(${laneOf(value, lane).text})`));
        continue;
      }
      const text = this.#narrow(laneOf(value, lane), operand);
      this.shader.line(this.shader.write(operand, this.index(index, 1, lane), text));
    }
  }

  /** A value as its operand's buffer holds it. */
  #narrow(value: Term, operand: number): string {
    const { dtype } = this.shader.operands[operand];
    if (dtype === "f16" || dtype === "bf16") {
      const bits = this.shader.helpers.use(dtype === "f16" ? "half_bits" : "brain_bits", 4);
      const h = this.#bind({ ...value, text: `${bits}(${value.text})` }).text;
      return `vec2<u32>(${h}.x | (${h}.y << 16u), ${h}.z | (${h}.w << 16u))`;
    }
    const stored = dtype === "bool" ? `${typeName("u32", value.width)}(${value.text})` : value.text;
    return reread(stored, dtype, this.shader.binding(operand).dtype, value.width);
  }
}
