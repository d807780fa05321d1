/** How the lanes of a row join their partial results: by subgroups where there are such, and in workgroup memory. */
import type { ScalarType } from "../../../core/dtype.ts";
import type { Phase } from "../../ir/kernel.ts";
import { literal } from "../literal.ts";
import type { ShaderWriter } from "../shader.ts";

/** What a reduction along a row does. */
export type Reduction = Extract<Phase, { kind: "reduce" }>;
type Op = Reduction["op"];

/** The value a reduction starts from. */
export function identity(shader: ShaderWriter, op: Op, type: ScalarType): string {
  if (op === "sum") return literal(type, 0, shader.helpers);
  if (type === "f32") return literal(type, op === "min" ? Infinity : -Infinity, shader.helpers);
  if (type === "u32") return literal(type, op === "min" ? 2 ** 32 - 1 : 0, shader.helpers);
  return literal(type, op === "min" ? 2 ** 31 - 1 : -(2 ** 31), shader.helpers);
}

/** How two partial results become one. */
export function combine(op: Op, a: string, b: string): string {
  return op === "sum" ? `${a} + ${b}` : `${op}(${a}, ${b})`;
}

/** Declares the function that joins the partial results of `lanes` lanes, and returns its name. */
export function declareJoin(
  shader: ShaderWriter,
  op: Op,
  type: ScalarType,
  lanes: number,
  subgroups: number,
): string {
  if (op === "argmax" || subgroups === 0 || lanes % subgroups !== 0 || type === "bool") {
    return declareTree(shader, op, type, lanes);
  }
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

/** The join by a tree; that of an argmax takes and gives columns beside the values. */
function declareTree(shader: ShaderWriter, op: Op, type: ScalarType, lanes: number): string {
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
