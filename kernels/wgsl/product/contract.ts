import { sizeOf } from "../../../core/aval.ts";
import type { ContractKernel } from "../../ir/kernel.ts";
import { axesUsed } from "../axes.ts";
import { accessesOf, rootsOf, walk } from "../../ir/expr.ts";
import { multiplySplitK } from "./split_k.ts";
import { multiplyTiles } from "./tiles.ts";
import type { Schedule } from "../schedule.ts";
import { ShaderWriter, type WgslShader } from "../shader.ts";

/**
 * A contract. Blocks of `a` hold four rows as vectors along k, blocks of `b` four k as vectors along n, so that
 * `acc += b * a` is a 4 x 4 x 4 product whatever the layouts, which only the loading functions know. Segments continue
 * one accumulation; the stores follow in place.
 */
export function emitContract(kernel: ContractKernel, schedule: Schedule<"contract">): WgslShader {
  const { operands, batch, segments, stores } = kernel;
  const exprs = walk(rootsOf(stores));
  const accesses = [...accessesOf(exprs, stores), ...segments.flatMap(({ a, b }) => [a, b])];
  const frame = {
    shader: new ShaderWriter(describe(kernel), operands, schedule, (i) => operandName(kernel, i)),
    kernel,
    vector: schedule.unit === 4,
    count: sizeOf(batch),
    used: axesUsed(accesses.map(({ index }) => index), exprs),
  };
  return schedule.by === "splitK" ? multiplySplitK({ ...frame, schedule }) : multiplyTiles({ ...frame, schedule });
}

/** `contract 512x768x2304 + 512x8x2304`. */
function describe({ batch, m, n, segments }: ContractKernel): string {
  const products = segments.map(({ k }) => `${m}x${k}x${n}`).join(" + ");
  return `contract ${batch.length > 0 ? `[${batch.join(",")}] ` : ""}${products}`;
}

function operandName({ segments, operands }: ContractKernel, i: number): string {
  for (const [s, { a, b }] of segments.entries()) {
    if (a.operand === i) return `a${s}`;
    if (b.operand === i) return `b${s}`;
  }
  return `${operands[i].access === "write" ? "out" : "in"}${i}`;
}
