import { sizeOf } from "../../core/aval.ts";
import type { ContractKernel, Segment } from "../kernel.ts";
import { axesUsed, splitAxes } from "./axes.ts";
import { blockAccess, declareBlockLoad } from "./block.ts";
import { accessesOf, countUses, rootsOf } from "./expressions.ts";
import { type Term, term } from "./scalar.ts";
import { isWide } from "./access.ts";
import { Scope } from "./scope.ts";
import { ShaderWriter, type WgslShader } from "./shader.ts";
import { fitTile, type TileConfig } from "./tile.ts";

/**
 * A contract: every invocation keeps blocks of 4 x 4 of the product in registers. A block of `a` holds four rows as
 * vectors along k, a block of `b` four k as vectors along n, so that `acc += b * a` is the 4 x 4 x 4 product whatever the
 * layouts, which only the loading functions know. Segments continue one accumulation; the stores follow in place.
 */
export function emitContract(kernel: ContractKernel, config: TileConfig, alias: readonly number[]): WgslShader {
  const { operands, batch, m, n, segments, stores } = kernel;
  const tile = fitTile(config, m, segments[0].k, n);
  const rank = batch.length;
  const exprs = [...countUses(rootsOf(stores)).keys()];
  const outer = accessesOf(exprs, stores);
  const vector = n % 4 === 0;
  const narrow = new Set<number>();
  for (const { operand, index } of outer) if (!vector || !isWide(index, rank + 1)) narrow.add(operand);
  for (const { k, a, b } of segments) {
    if (blockAccess(a.index, rank, m, k) === "element") narrow.add(a.operand);
    if (blockAccess(b.index, rank, k, n) === "element") narrow.add(b.operand);
  }

  const shader = new ShaderWriter(describe(kernel), operands, alias, narrow, (i) => operandName(kernel, i));
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  const span = { m: rows * down * 4, n: columns * across * 4 };
  const tiles = { m: Math.ceil(m / span.m), n: Math.ceil(n / span.n) };
  const used = axesUsed([...outer, ...segments.flatMap(({ a, b }) => [a, b])].map(({ index }) => index), exprs);
  return shader.main(tiles.m * tiles.n * sizeOf(batch), [columns * rows], () => {
    const count = tiles.m * tiles.n;
    if (used.size > 0 && batch.some((size, i) => size !== 1 && used.has(i))) {
      shader.line(`let batch = ${count === 1 ? "group" : `group / ${count}u`};`);
    }
    const batchNames = splitAxes(shader, "batch", batch, used, "batch");
    segments.forEach(({ k, a, b }, s) => {
      const step = Math.max(4, tile.depth);
      const at = { shader, batch: batchNames };
      declareBlockLoad(at, `load_a${s}`, a, ["m", "k"], { size: m, reach: tiles.m * span.m }, { size: k, step });
      declareBlockLoad(at, `load_b${s}`, b, ["k", "n"], { size: n, reach: tiles.n * span.n }, { size: k, step });
    });
    const params = batchNames.filter((name) => name !== "0u").map((name) => `${name}, `).join("");
    const tileM = tiles.m === 1 ? "0u" : tiles.n === 1 ? `group % ${tiles.m}u` : `(group / ${tiles.n}u) % ${tiles.m}u`;
    const tileN = tiles.n === 1 ? "0u" : `group % ${tiles.n}u`;
    shader.line(`let m0 = (${tileM}) * ${span.m}u;`);
    shader.line(`let n0 = (${tileN}) * ${span.n}u;`);
    shader.line(`let row = lane / ${columns}u;`);
    shader.line(`let column = lane % ${columns}u;`);
    shader.line(`var acc: array<array<mat4x4<f32>, ${across}>, ${down}>;`);
    segments.forEach((segment, s) => {
      if (tile.depth > 0) stagedLoop(shader, tile, segment, s, params);
      else directLoop(shader, tile, segment, s, params);
    });
    emitStores(shader, kernel, tile, batchNames, vector);
  });
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

const multiplyBlocks = "acc[r][c] += b[c] * a;";

/** The K loop where every block is read from where it lies. */
function directLoop(shader: ShaderWriter, tile: TileConfig, { k }: Segment, s: number, params: string): void {
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  shader.block(`for (var k = 0u; k < ${k}u; k += 4u)`, () => {
    shader.line(`var b: array<mat4x4<f32>, ${across}>;`);
    shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => {
      shader.line(`b[c] = load_b${s}(${params}k, n0 + (c * ${columns}u + column) * 4u);`);
    });
    shader.block(`for (var r = 0u; r < ${down}u; r++)`, () => {
      shader.line(`let a = load_a${s}(${params}m0 + (r * ${rows}u + row) * 4u, k);`);
      shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => shader.line(multiplyBlocks));
    });
  });
}

/** The K loop where a workgroup first stages its blocks in workgroup memory. */
function stagedLoop(shader: ShaderWriter, tile: TileConfig, { k }: Segment, s: number, params: string): void {
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  const lanes = columns * rows;
  const deep = tile.depth / 4;
  const [wide, high] = [columns * across, rows * down];
  shader.declare(
    "stage",
    `\nvar<workgroup> stage_a: array<mat4x4<f32>, ${high * deep}>;\n` +
      `var<workgroup> stage_b: array<mat4x4<f32>, ${deep * wide}>;`,
  );
  shader.block(`for (var k = 0u; k < ${k}u; k += ${tile.depth}u)`, () => {
    shader.block(`for (var t = lane; t < ${high * deep}u; t += ${lanes}u)`, () => {
      shader.line(`let m = m0 + t / ${deep}u * 4u;`);
      shader.line(`stage_a[t] = load_a${s}(${params}m, k + t % ${deep}u * 4u);`);
    });
    shader.block(`for (var t = lane; t < ${deep * wide}u; t += ${lanes}u)`, () => {
      shader.line(`let n = n0 + t % ${wide}u * 4u;`);
      shader.line(`stage_b[t] = load_b${s}(${params}k + t / ${wide}u * 4u, n);`);
    });
    shader.line("workgroupBarrier();");
    shader.block(`for (var d = 0u; d < ${deep}u; d++)`, () => {
      shader.line(`var b: array<mat4x4<f32>, ${across}>;`);
      shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => {
        shader.line(`b[c] = stage_b[d * ${wide}u + c * ${columns}u + column];`);
      });
      shader.block(`for (var r = 0u; r < ${down}u; r++)`, () => {
        shader.line(`let a = stage_a[(r * ${rows}u + row) * ${deep}u + d];`);
        shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => shader.line(multiplyBlocks));
      });
    });
    shader.line("workgroupBarrier();");
  });
}

/** The epilogue: the stores at every element of the invocation's blocks, four columns at a time where n allows. */
function emitStores(
  shader: ShaderWriter,
  { m, n, stores }: ContractKernel,
  tile: TileConfig,
  batch: readonly string[],
  vector: boolean,
): void {
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  const guard = (name: string, size: number, span: number) => {
    if (size % span !== 0) shader.line(`if (${name} >= ${size}u) { continue; }`);
  };
  const scope = (quarter: string, sum: Term) =>
    new Scope(shader, {
      axes: [...batch, "m", "n"],
      vector: vector ? { axis: batch.length + 1, quarter } : undefined,
      results: new Map([[0, sum]]),
    });
  shader.block(`for (var at = 0u; at < ${down * 4}u; at++)`, () => {
    shader.line(`let m = m0 + (at / 4u * ${rows}u + row) * 4u + at % 4u;`);
    guard("m", m, rows * down * 4);
    shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => {
      if (vector) {
        shader.line(`let n4 = n0 / 4u + c * ${columns}u + column;`);
        if (n % (columns * across * 4) !== 0) shader.line(`if (n4 >= ${n / 4}u) { continue; }`);
        shader.line("let n = n4 * 4u;");
        shader.line("let sum = acc[at / 4u][c][at % 4u];");
        scope("n4", { text: "sum", type: "f32", width: 4, atom: true }).store(stores);
        return;
      }
      shader.line("let sums = acc[at / 4u][c][at % 4u];");
      shader.block("for (var j = 0u; j < 4u; j++)", () => {
        shader.line(`let n = n0 + (c * ${columns}u + column) * 4u + j;`);
        shader.line(`if (n >= ${n}u) { continue; }`);
        shader.line("let sum = sums[j];");
        scope("", term("sum", "f32")).store(stores);
      });
    });
  });
}
