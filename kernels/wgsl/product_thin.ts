import type { ContractKernel } from "../kernel.ts";
import { blockAccess } from "./block.ts";
import { declareMultiply } from "./multiply.ts";
import { batchArguments, declareStore, longDepth, openProduct, type ProductFrame } from "./product.ts";
import type { WgslShader } from "./shader.ts";
import type { TileConfig } from "./tile.ts";

/** A product with a side no longer than this has no use for tiles: little would be read twice. */
const thinSide = 32;
/** Blocks of 4 x 4 that do not fill a GPU with tiles; one slice of K each is enough from four times as many on. */
const fewBlocks = 2048;
/** The most lanes that a workgroup has on every device. */
const mostLanes = 256;

/** Whether a product is cut along K rather than into tiles: a single row, the r-wide side of an adapter, a small one. */
export function isThin({ m, n }: ContractKernel, tile: TileConfig, count: number): boolean {
  return m === 1 || tile.slices > 1 && (Math.min(m, n) <= thinSide || blocksOf(m, n) * count <= fewBlocks);
}

function blocksOf(m: number, n: number): number {
  return Math.ceil(m / 4) * Math.ceil(n / 4);
}

/** The number of lanes that share one block's K: as many as a GPU wants, and no fewer than a long sum's digits need. */
function slicesOf({ m, n, segments: [{ k }] }: ContractKernel, { slices }: TileConfig, count: number): number {
  const wanted = Math.min(slices, (fewBlocks * 4) / (blocksOf(m, n) * count), k / 4);
  const least = Math.min(mostLanes, 2 ** Math.ceil(Math.log2(Math.max(1, k / longDepth))));
  return Math.max(least, 2 ** Math.max(0, Math.floor(Math.log2(wanted))));
}

/**
 * Each invocation sums one slice of K for one block, of four columns and four rows or the single one, and the slices meet
 * in workgroup memory. Reading is all the time it takes, so neighbouring lanes go where the larger operand is contiguous.
 */
export function multiplyThin(frame: ProductFrame): WgslShader {
  const { shader, kernel, tile, count } = frame;
  const { m, n, segments, batch: sizes } = kernel;
  const slices = slicesOf(kernel, tile, count);
  const lanes = Math.max(tile.workgroup[0] * tile.workgroup[1], slices);
  const perGroup = lanes / slices;
  const [high, wide] = [Math.ceil(m / 4), Math.ceil(n / 4)];
  const groups = Math.ceil(high * wide / perGroup);
  const [{ k, a, b }] = segments;
  const alongK = m >= n
    ? blockAccess(a.index, sizes.length, m, k) === "along"
    : blockAccess(b.index, sizes.length, k, n) === "across";
  const single = m === 1;
  const type = single ? "vec4<f32>" : "mat4x4<f32>";
  shader.cut = `${single ? "one row" : "a block of 4 x 4"} and one of ${slices} slices of k a lane`;
  return shader.main(groups * count, [lanes], () => {
    // Of a block of a single row only the first vector is used: whatever the other three load falls away.
    const batch = openProduct(frame, groups, { m: single ? 1 : high * 4, n: wide * 4 }, () => 4 * slices);
    const [slice, inGroup] = alongK
      ? [`lane % ${slices}u`, `lane / ${slices}u`]
      : [`lane / ${perGroup}u`, `lane % ${perGroup}u`];
    if (slices > 1) shader.line(`let slice = ${slice};`);
    shader.line(`let part = ${slices > 1 ? inGroup : "lane"};`);
    const first = groups > 1 ? `group % ${groups}u * ${perGroup}u + ` : "";
    // Lanes past the last block repeat it: they must reach the barriers.
    const overshoots = (high * wide) % perGroup !== 0;
    shader.line(`let block = ${overshoots ? `min(${first}part, ${high * wide - 1}u)` : `${first}part`};`);
    if (!single) shader.line(`let m0 = ${m >= n ? `block % ${high}u` : `block / ${wide}u`} * 4u;`);
    shader.line(`let n0 = ${single ? "block" : m >= n ? `block / ${high}u` : `block % ${wide}u`} * 4u;`);
    declareMultiply(shader);
    shader.line(`var sum = ${type}();`);
    const args = batchArguments(batch);
    segments.forEach(({ k }, s) => {
      const start = slices > 1 ? "slice * 4u" : "0u";
      shader.block(`for (var k = ${start}; k < ${k}u; k += ${4 * slices}u)`, () => {
        const q = `load_b${s}(${args}k, n0)`;
        shader.line(
          single
            ? `sum = multiply_row(sum, load_a${s}(${args}0u, k)[0], ${q});`
            : `sum = multiply(sum, load_a${s}(${args}m0, k), ${q});`,
        );
      });
    });
    if (slices > 1) joinSlices(frame, type, lanes, perGroup);
    if (overshoots) shader.line(`if (${first}part >= ${high * wide}u) { return; }`);
    const store = declareStore(frame, batch, { m: single ? 1 : high * 4, n: wide * 4 });
    shader.line(`${store}(${args}${single ? "0u" : "m0"}, n0, sum);`);
  });
}

/** Adds the slices up by a tree; afterwards the lanes of slice 0 hold the sums and the others are gone. */
function joinSlices({ shader }: ProductFrame, type: string, lanes: number, perGroup: number): void {
  shader.declare("parts", `\nvar<workgroup> parts: array<${type}, ${lanes}>;`);
  shader.line(`let place = slice * ${perGroup}u + part;`);
  shader.line("parts[place] = sum;\nworkgroupBarrier();");
  shader.block(`for (var step = ${lanes / 2}u; step >= ${perGroup}u; step /= 2u)`, () => {
    shader.line("if (place < step) { parts[place] += parts[place + step]; }");
    shader.line("workgroupBarrier();");
  });
  shader.line("if (slice > 0u) { return; }\nsum = parts[place];");
}
