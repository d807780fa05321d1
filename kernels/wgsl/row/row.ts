import { sizeOf } from "../../../core/aval.ts";
import type { ScalarType } from "../../../core/dtype.ts";
import type { Phase, RowKernel } from "../../ir/kernel.ts";
import { axesUsed, splitAxes } from "../axes.ts";
import { accessesOf, AxesOf, childrenOf, countUses, type Expr, rootsOf } from "../../ir/expr.ts";
import { combine, declareJoin, identity, type Reduction } from "./join.ts";
import type { RowSchedule } from "./row_schedule.ts";
import { type OnlineReduction, resultsOf } from "./online.ts";
import { laneOf, splat, type Term, term } from "../scalar.ts";
import type { Schedule } from "../schedule.ts";
import { type AxisNames, Scope } from "../scope.ts";
import { ShaderWriter, type WgslShader } from "../shader.ts";

/**
 * A row kernel: invocations share a row and join their partial results. A row that fits the registers of its lanes is read
 * once and kept; another is read once for all of its statistics that can run side by side, and once for what is stored.
 */
export function emitRow(kernel: RowKernel, schedule: Schedule<"row">): WgslShader {
  const { rows, cols, phases, operands } = kernel, { lanes, kept, passes, workgroupSize } = schedule;
  const uses = countUses(phases.flatMap((phase) => phase.kind === "reduce" ? [phase.value] : rootsOf(phase.stores)));
  const stores = phases.flatMap((phase) => phase.kind === "reduce" ? [] : phase.stores);
  const shader = new ShaderWriter(`row [${[...rows, cols].join(",")}]`, operands, schedule);
  const times = passes.length === 1 ? "once" : passes.length === 2 ? "twice" : `${passes.length} times`;
  shader.tiling = `a row a ${lanes === 1 ? "lane" : "workgroup"}, ` +
    (kept ? "kept in registers" : `read ${times}`);
  const count = sizeOf(rows);
  return shader.main(() => {
    if (lanes === 1) {
      shader.line(`let row = group * ${workgroupSize}u + lane;`);
      if (count % workgroupSize !== 0) shader.line(`if (row >= ${count}u) { return; }`);
    } else shader.line("let row = group;");
    const used = axesUsed(accessesOf(uses.keys(), stores).map(({ index }) => index), uses.keys());
    const writer = new RowWriter(shader, kernel, schedule, uses, splitAxes(shader, "row", rows, used));
    if (kept) writer.keep();
    else writer.stream();
  });
}

/** The estimate of a maximum before there is one: finite, so that differences from it are numbers. */
const lowest = "-3.0e38";

/**
 * Terms that a lane adds one to the other before their sum becomes one term of a further sum: rounding errors grow with the
 * length of such chains, not with that of the row.
 */
const longestChain = 16;

/** Whether a running sum is of floats, and of nothing but its terms and a factor: it may be added up in blocks. */
const addsUp = ({ op, value, follows }: OnlineReduction) =>
  op === "sum" && value.type === "f32" && (follows === "exp" || follows.length === 0);

const sumOf = (parts: readonly string[]) => parts.length > 1 ? `(${parts.join(" + ")})` : parts[0];

class RowWriter {
  readonly #results = new Map<number, Term>();
  /** What is the same in the whole row. */
  readonly #row: Scope;
  readonly #outer: NonNullable<AxisNames["outer"]>;
  readonly #column: number;
  readonly #axes = new AxesOf();

  constructor(
    readonly shader: ShaderWriter,
    readonly kernel: RowKernel,
    readonly schedule: RowSchedule,
    readonly uses: ReadonlyMap<Expr, number>,
    readonly rowAxes: readonly string[],
  ) {
    this.#column = rowAxes.length;
    this.#row = new Scope(shader, { axes: [...rowAxes, "0u"], results: this.#results }, uses);
    this.#outer = { scope: this.#row, owns: (expr) => this.#isOfRow(expr) };
  }

  /** Reads each column once: every lane has variables of its own for those that it takes, for all phases. */
  keep(): void {
    const { shader, schedule: { lanes, unit } } = this;
    const blocks = this.kernel.cols / unit;
    const steps = Math.ceil(blocks / lanes);
    const scopes = Array.from({ length: steps }, (_, i) => {
      const at = i === 0 ? "lane" : `lane + ${i * lanes}u`;
      if (lanes === 1) return this.#scope(`${i}u`);
      const over = (i + 1) * lanes > blocks;
      shader.line(`let c${i} = ${over ? `min(${at}, ${blocks - 1}u)` : at};`);
      return this.#scope(`c${i}`);
    });
    // Lanes past the end read the last column once more: it counts for nothing and is not stored.
    const inside = steps * lanes === blocks ? null : `lane < ${blocks - (steps - 1) * lanes}u`;
    this.#phases((phase, p) => {
      if (phase.kind === "each") {
        return scopes.forEach((scope, i) =>
          scope.store(phase.stores, (i === steps - 1 && inside) ? `if (${inside})` : undefined)
        );
      }
      const { op, value: { type } } = phase;
      const terms = scopes.map((scope, i) => {
        const x = this.#widened(scope.value(phase.value));
        if (i < steps - 1 || inside === null) return x.text;
        const none = identity(shader, op, type);
        return `select(${unit === 4 ? `vec4<${type}>(${none})` : none}, ${x.text}, ${inside})`;
      });
      const all = terms.reduce((a, b) => combine(op, a, b));
      const whole = shader.fresh();
      shader.line(`let ${whole} = ${all};`);
      this.#finish(p, type, this.#joined(op, type, this.#across(op, { text: whole, type, width: unit, atom: true })));
    });
  }

  /** Reads the row in loops, one for each reading. */
  stream(): void {
    const { shader, schedule: { passes } } = this;
    passes.forEach((pass, i) => {
      if (passes.length > 1) shader.line(`// pass ${i + 1} of ${passes.length}`);
      if ("stores" in pass) {
        this.#hoist(rootsOf(pass.stores));
        this.#loop((scope) => scope.store(pass.stores));
      } else this.#run(pass);
    });
    this.#phases(() => {});
  }

  /** Reductions side by side in one loop. */
  #run(pass: readonly OnlineReduction[]): void {
    const { shader, schedule: { lanes }, kernel: { cols } } = this;
    const estimated = new Set(pass.flatMap(({ by }) => by ?? []));
    this.#hoist(pass.flatMap(({ value }) => [value]));
    for (const { phase, op, value, follows } of pass) {
      shader.line(`var r${phase} = ${identity(shader, op, value.type)};`);
      if (op === "argmax") shader.line(`var at${phase} = 0i;`);
      if (follows !== "exp") follows.forEach((_, d) => shader.line(`var r${phase}_${d + 1} = 0.0;`));
      if (estimated.has(phase)) shader.line(`var e${phase} = ${op === "max" ? lowest : "0.0"};`);
    }
    const rounds = Math.ceil(cols / this.schedule.unit / lanes);
    const blocked = pass.filter((online) => rounds > longestChain && addsUp(online));
    const levels = Math.ceil(Math.log(rounds) / Math.log(longestChain)) - 1;
    /** The parts of a running sum, from the newest to the one that is its result. */
    const parts = (online: OnlineReduction) => [
      ...(blocked.includes(online) ? Array.from({ length: levels }, (_, i) => `s${online.phase}_${i}`) : []),
      `r${online.phase}`,
    ];
    for (const online of blocked) parts(online).slice(0, -1).forEach((part) => shader.line(`var ${part} = 0.0;`));
    const opOf = (phase: number) => pass.find((each) => each.phase === phase)!.op;
    const counts = [...estimated].some((phase) => opOf(phase) === "sum");
    if (counts) shader.line("var seen = 0.0;");
    const estimates = new Map(this.#results);
    estimated.forEach((p) => estimates.set(p, term(`n${p}`, "f32")));
    this.#loop(
      (scope, first) => {
        if (counts) shader.line(`seen += ${this.schedule.unit}.0;`);
        for (const online of pass) {
          const { phase, op, value, by, follows } = online;
          if (op === "argmax") this.#search(phase, scope.value(value), first);
          else {
            if (by !== null) this.#move(online, `n${by}`, parts(online));
            const add = (name: string, expr: Expr) =>
              shader.line(`${name} = ${combine(op, name, this.#across(op, this.#widened(scope.value(expr))))};`);
            add(parts(online)[0], value);
            if (follows !== "exp") follows.forEach((expr, d) => add(`r${phase}_${d + 1}`, expr));
          }
          if (!estimated.has(phase)) continue;
          // A sum's estimate is the mean so far, times all the columns.
          const estimate = op === "max" ? `max(e${phase}, r${phase})` : `${sumOf(parts(online))} * (${cols}.0 / seen)`;
          shader.line(`let n${phase} = ${estimate};`);
        }
        estimated.forEach((phase) => shader.line(`e${phase} = n${phase};`));
      },
      estimates,
      {
        levels: blocked.length > 0 ? levels : 0,
        enter: (level) => blocked.forEach((online) => shader.line(`${parts(online)[level]} = 0.0;`)),
        leave: (level) =>
          blocked.forEach((online) => {
            const [part, next] = parts(online).slice(level);
            shader.line(`${next} += ${part};`);
          }),
      },
    );
    for (const online of pass) {
      const { phase, op, value: { type }, factor, by } = online;
      if (op === "argmax") {
        if (lanes > 1) {
          shader.line(`at${phase} = ${declareJoin(shader, op, type, lanes, 0)}(lane, r${phase}, at${phase});`);
        }
        this.#results.set(phase, term(`at${phase}`, "i32"));
        continue;
      }
      // A lane alone has followed its estimate to the end; several have each their own.
      if (by !== null && lanes > 1) this.#move(online, opOf(by) === "max" ? `max(${lowest}, r${by})` : `r${by}`);
      if (lanes > 1) shader.line(`r${phase} = ${this.#joined(op, type, `r${phase}`)};`);
      if (factor) shader.line(`r${phase} *= ${this.#row.named(factor).text};`);
      this.#results.set(phase, term(`r${phase}`, type));
    }
  }

  /** Moves a sum, in all its parts, and those of its derivatives, from the estimate e to `to`. */
  #move({ phase, by, follows }: OnlineReduction, to: string, parts = [`r${phase}`]): void {
    const { shader } = this;
    if (follows === "exp") {
      const factor = `exp(e${by} - ${to})`, name = parts.length > 1 ? shader.fresh("f") : factor;
      if (name !== factor) shader.line(`let ${name} = ${factor};`);
      return parts.forEach((part) => shader.line(`${part} *= ${name};`));
    }
    const d = shader.fresh("d");
    shader.line(`let ${d} = ${to} - e${by};`);
    const [one, two] = follows.map((_, i) => `r${phase}_${i + 1}`);
    shader.line(`r${phase} += ${two ? `${d} * (${one} + 0.5 * ${d} * ${two})` : `${d} * ${one}`};`);
    if (two) shader.line(`${one} += ${d} * ${two};`);
  }

  /** Looks through the columns of a block for the first that is greater than all before. */
  #search(phase: number, x: Term, first: string): void {
    for (let i = 0; i < this.schedule.unit; i++) {
      const each = laneOf(x, i).text;
      const at = i === 0 ? first : `${first} + ${i}u`;
      this.shader.line(`if (${each} > r${phase}) {\n  r${phase} = ${each};\n  at${phase} = i32(${at});\n}`);
    }
  }

  /** Runs over the blocks of columns that a lane takes, in loops within loops where there are `levels` of them. */
  #loop(
    body: (scope: Scope, first: string) => void,
    results: ReadonlyMap<number, Term> = this.#results,
    nested?: { readonly levels: number; enter(level: number): void; leave(level: number): void },
  ): void {
    const { lanes, unit } = this.schedule;
    const end = `${this.kernel.cols / unit}u`;
    const nest = (level: number, from: string, limit: string): void => {
      const step = lanes * longestChain ** level, c = level === 0 ? "c" : `c${level}`;
      const advance = step === 1 ? `${c}++` : `${c} += ${step}u`;
      this.shader.block(`for (var ${c} = ${from}; ${c} < ${limit}; ${advance})`, () => {
        if (level === 0) return body(this.#scope("c", results), unit === 4 ? "c * 4u" : "c");
        nested!.enter(level - 1);
        nest(level - 1, c, `min(${c} + ${step}u, ${end})`);
        nested!.leave(level - 1);
      });
    };
    nest(nested?.levels ?? 0, lanes === 1 ? "0u" : "lane", end);
  }

  /** The scope of the block of columns that `block` numbers. */
  #scope(block: string, results: ReadonlyMap<number, Term> = this.#results): Scope {
    const { unit } = this.schedule;
    const axes = [...this.rowAxes, unit === 4 ? `${block} * 4u` : block];
    const names: AxisNames = { axes, results, outer: this.#outer };
    const vector = { axis: this.#column, quarter: block };
    return new Scope(this.shader, unit === 4 ? { ...names, vector } : names, this.uses);
  }

  /** Whether an expression is known before the columns are looked at: it is the same in all, and its results are there. */
  #isOfRow(expr: Expr): boolean {
    if (expr.kind === "const" || expr.kind === "result" || this.#axes.varies(expr, this.#column)) return false;
    return [...resultsOf(expr)].every((phase) => this.#results.has(phase));
  }

  /** Computes before a loop what is the same in all of its rounds. */
  #hoist(roots: readonly Expr[]): void {
    for (const root of roots) {
      if (this.#isOfRow(root)) this.#row.named(root);
      else this.#hoist(childrenOf(root));
    }
  }

  /** Walks the phases in order, but that stores once for a row are done here, by one lane. */
  #phases(body: (phase: Exclude<Phase, { kind: "once" }>, p: number) => void): void {
    this.kernel.phases.forEach((phase, p) => {
      if (phase.kind !== "once") return body(phase, p);
      this.#hoist(rootsOf(phase.stores));
      const scope = new Scope(this.shader, {
        axes: [...this.rowAxes, "0u"],
        results: this.#results,
        outer: this.#outer,
      });
      const store = () => scope.store(phase.stores);
      if (this.schedule.lanes === 1) store();
      else this.shader.block("if (lane == 0u)", store);
    });
  }

  #widened(x: Term): Term {
    return this.schedule.unit === 4 ? splat(x) : x;
  }

  /** The four elements of a block as one. */
  #across(op: Reduction["op"], x: Term): string {
    if (x.width === 1) return x.text;
    const named = x.atom && /^\w+$/.test(x.text) ? x.text : this.shader.fresh();
    if (named !== x.text) this.shader.line(`let ${named} = ${x.text};`);
    if (op === "sum") return `(${named}.x + ${named}.y + ${named}.z + ${named}.w)`;
    return `${op}(${op}(${named}.x, ${named}.y), ${op}(${named}.z, ${named}.w))`;
  }

  #joined(op: Reduction["op"], type: ScalarType, x: string): string {
    const { lanes } = this.schedule;
    return lanes === 1 ? x : `${declareJoin(this.shader, op, type, lanes, this.schedule.subgroups)}(lane, ${x})`;
  }

  #finish(phase: number, type: ScalarType, text: string): void {
    this.shader.line(`let r${phase} = ${text};`);
    this.#results.set(phase, term(`r${phase}`, type));
  }
}
