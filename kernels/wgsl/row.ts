import { sizeOf } from "../../core/aval.ts";
import type { ScalarType } from "../../core/dtype.ts";
import type { Index, Phase, RowKernel } from "../kernel.ts";
import { axesUsed, splitAxes } from "./axes.ts";
import { accessesOf, countUses, rootsOf } from "./expressions.ts";
import { literal } from "./literal.ts";
import { type Term, term } from "./scalar.ts";
import { Scope } from "./scope.ts";
import { ShaderWriter, type WgslShader } from "./shader.ts";
import { mostRounds, type TileConfig } from "./tile.ts";

type Reduction = Extract<Phase, { kind: "reduce" }>;

/** The value a reduction starts from. */
function identity(shader: ShaderWriter, op: Reduction["op"], type: ScalarType): string {
  if (op === "sum") return literal(type, 0, shader.helpers);
  if (type === "f32") return literal(type, op === "min" ? Infinity : -Infinity, shader.helpers);
  if (type === "u32") return literal(type, op === "min" ? 2 ** 32 - 1 : 0, shader.helpers);
  return literal(type, op === "min" ? 2 ** 31 - 1 : -(2 ** 31), shader.helpers);
}

/** How two partial results become one. */
function combine(op: Reduction["op"], a: string, b: string): string {
  return op === "sum" ? `${a} + ${b}` : `${op}(${a}, ${b})`;
}

/** Columns from which on a row takes four times the lanes. */
const longRow = 4096;

/** Lanes that share a row: one where neighbouring rows, and not neighbouring columns, lie side by side in memory. */
function lanesOf({ rows, cols, phases }: RowKernel, indices: readonly Index[], { rowLanes }: TileConfig): number {
  const least = 2 ** Math.max(0, Math.ceil(Math.log2(cols * phases.length / mostRounds)));
  const beside = (axis: number) => indices.some(({ strides }) => strides[axis] === 1);
  if (rowLanes === 1 || (!beside(rows.length) && rows.length > 0 && beside(rows.length - 1))) {
    return Math.min(256, least);
  }
  return Math.min(256, Math.max(least, cols >= longRow ? rowLanes * 4 : rowLanes));
}

/**
 * A row kernel: `rowLanes` invocations share a row and join their partial results by a tree in workgroup memory; with one
 * lane each invocation runs its rows alone, with no barrier.
 */
export function emitRow(kernel: RowKernel, tile: TileConfig, alias: readonly number[]): WgslShader {
  const { rows, cols, phases, operands } = kernel;
  const count = sizeOf(rows);
  const name = `row [${[...rows, cols].join(",")}]`;
  const shader = new ShaderWriter(name, operands, alias, new Set(operands.keys()), tile);
  const roots = phases.flatMap((phase) => phase.kind === "reduce" ? [phase.value] : rootsOf(phase.stores));
  const exprs = [...countUses(roots).keys()];
  const stores = phases.flatMap((phase) => phase.kind === "reduce" ? [] : phase.stores);
  const indices = accessesOf(exprs, stores).map(({ index }) => index);
  const used = axesUsed(indices, exprs);
  const lanes = lanesOf(kernel, indices, tile);

  shader.cut = lanes === 1 ? "a row a lane" : "a row a workgroup";
  const groups = lanes === 1 ? Math.ceil(count / tile.mapLanes) : count;
  return shader.main(groups, [lanes === 1 ? tile.mapLanes : lanes], () => {
    if (lanes === 1) {
      shader.line(`let row = group * ${tile.mapLanes}u + lane;`);
      if (count % tile.mapLanes !== 0) shader.line(`if (row >= ${count}u) { return; }`);
    } else shader.line("let row = group;");
    const axes = [...splitAxes(shader, "row", rows, used), "c"];
    const results = new Map<number, Term>();
    const loop = lanes === 1
      ? `for (var c = 0u; c < ${cols}u; c++)`
      : `for (var c = lane; c < ${cols}u; c += ${lanes}u)`;
    phases.forEach((phase, p) => {
      shader.line(`// phase ${p}: ${phase.kind === "reduce" ? phase.op : phase.kind}`);
      const scope = new Scope(shader, { axes, results });
      if (phase.kind === "each") shader.block(loop, () => scope.store(phase.stores));
      else if (phase.kind === "once") {
        const once = new Scope(shader, { axes: [...axes.slice(0, -1), "0u"], results });
        shader.block(lanes === 1 ? "" : "if (lane == 0u)", () => once.store(phase.stores));
      } else results.set(p, emitReduction(shader, scope, phase, p, loop, lanes, tile.subgroups));
    });
  });
}

function emitReduction(
  shader: ShaderWriter,
  scope: Scope,
  { op, value }: Reduction,
  p: number,
  loop: string,
  lanes: number,
  subgroups: number,
): Term {
  const type = value.type;
  shader.line(`var r${p} = ${identity(shader, op, type)};`);
  if (op === "argmax") {
    shader.line(`var at${p} = 0i;`);
    shader.block(loop, () => {
      const x = scope.value(value).text;
      shader.line(`if (${x} > r${p}) {\n  r${p} = ${x};\n  at${p} = i32(c);\n}`);
    });
    if (lanes > 1) shader.line(`at${p} = ${declareTree(shader, op, type, lanes)}(lane, r${p}, at${p});`);
    return term(`at${p}`, "i32");
  }
  shader.block(loop, () => shader.line(`r${p} = ${combine(op, `r${p}`, scope.value(value).text)};`));
  if (lanes > 1) shader.line(`r${p} = ${declareJoin(shader, op, type, lanes, subgroups)}(lane, r${p});`);
  return term(`r${p}`, type);
}

/** Declares, once, the function that joins the lanes' partial results, and returns its name. */
function declareTree(shader: ShaderWriter, op: Reduction["op"], type: ScalarType, lanes: number): string {
  const name = `${op}_${type}`;
  const pair = op === "argmax";
  const join = pair
    ? `let x = ${name}_x[lane + step];
      let at = ${name}_at[lane + step];
      let mine = ${name}_x[lane];
      if (x > mine || (x == mine && at < ${name}_at[lane])) {
        ${name}_x[lane] = x;
        ${name}_at[lane] = at;
      }`
    : `let other = ${name}_x[lane + step];
      ${name}_x[lane] = ${combine(op, `${name}_x[lane]`, "other")};`;
  shader.declare(
    name,
    `
var<workgroup> ${name}_x: array<${type}, ${lanes}>;${pair ? `\nvar<workgroup> ${name}_at: array<i32, ${lanes}>;` : ""}
fn ${name}(lane: u32, x: ${type}${pair ? ", at: i32" : ""}) -> ${pair ? "i32" : type} {
  ${name}_x[lane] = x;${pair ? `\n  ${name}_at[lane] = at;` : ""}
  workgroupBarrier();
  for (var step = ${lanes / 2}u; step > 0u; step /= 2u) {
    if (lane < step) {
      ${join}
    }
    workgroupBarrier();
  }
  let joined = ${name}_${pair ? "at" : "x"}[0];
  workgroupBarrier();
  return joined;
}`,
  );
  return name;
}

/** Declares the function that joins the lanes' partial results by subgroups, if there are such, and then in workgroup memory. */
function declareJoin(
  shader: ShaderWriter,
  op: "sum" | "max" | "min",
  type: ScalarType,
  lanes: number,
  subgroups: number,
): string {
  if (subgroups === 0 || lanes % subgroups !== 0 || type === "bool") return declareTree(shader, op, type, lanes);
  const name = `${op}_${type}`;
  const within = { sum: "subgroupAdd", max: "subgroupMax", min: "subgroupMin" }[op];
  const parts = lanes / subgroups;
  if (parts === 1) {
    shader.declare(name, `\nfn ${name}(lane: u32, x: ${type}) -> ${type} { return ${within}(x); }`);
    return name;
  }
  shader.declare(
    name,
    `
var<workgroup> ${name}_x: array<${type}, ${parts}>;
fn ${name}(lane: u32, x: ${type}) -> ${type} {
  let part = ${within}(x);
  if (lane % ${subgroups}u == 0u) { ${name}_x[lane / ${subgroups}u] = part; }
  workgroupBarrier();
  var joined = ${name}_x[0];
  for (var i = 1u; i < ${parts}u; i++) {
    let other = ${name}_x[i];
    joined = ${combine(op, "joined", "other")};
  }
  workgroupBarrier();
  return joined;
}`,
  );
  return name;
}
