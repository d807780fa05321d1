import { sizeOf } from "../../../core/aval.ts";
import type { ContractKernel } from "../../ir/kernel.ts";
import { isWide } from "../access.ts";
import { axesUsed } from "../axes.ts";
import { blockAccess } from "../block.ts";
import { accessesOf, rootsOf, walk } from "../../ir/expr.ts";
import type { ProductFrame } from "./product.ts";
import { isThin, multiplySplitK } from "./split_k.ts";
import { multiplyTiles } from "./tiles.ts";
import { ShaderWriter, type WgslShader } from "../shader.ts";
import { fitTile, type TileConfig } from "../tile.ts";

/**
 * A contract. Blocks of `a` hold four rows as vectors along k, blocks of `b` four k as vectors along n, so that
 * `acc += b * a` is a 4 x 4 x 4 product whatever the layouts, which only the loading functions know. Segments continue
 * one accumulation; the stores follow in place.
 */
export function emitContract(kernel: ContractKernel, config: TileConfig, alias: readonly number[]): WgslShader {
  const { operands, batch, m, n, segments, stores } = kernel;
  const rank = batch.length;
  const exprs = walk(rootsOf(stores));
  const outer = accessesOf(exprs, stores);
  const vector = n % 4 === 0;
  const narrow = new Set<number>();
  for (const { operand, index } of outer) if (!vector || !isWide(index, rank + 1)) narrow.add(operand);
  for (const { k, a, b } of segments) {
    if (blockAccess(a.index, rank, m, k) === "element") narrow.add(a.operand);
    if (blockAccess(b.index, rank, k, n) === "element") narrow.add(b.operand);
  }
  const thin = isThin(kernel, config, sizeOf(batch));
  const inner = segments.flatMap(({ a, b }) => [a, b]);
  const frame: ProductFrame = {
    shader: new ShaderWriter(describe(kernel), operands, alias, narrow, config, (i) => operandName(kernel, i)),
    kernel,
    tile: thin ? config : fitTile(config, m, segments[0].k, n),
    vector,
    count: sizeOf(batch),
    used: axesUsed([...outer, ...inner].map(({ index }) => index), exprs),
  };
  return thin ? multiplySplitK(frame) : multiplyTiles(frame);
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
