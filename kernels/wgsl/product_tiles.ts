import { batchArguments, openProduct, type ProductFrame, storeColumns } from "./product.ts";
import type { WgslShader } from "./shader.ts";

/** Each invocation keeps `blocks` of 4 x 4 of the product in registers, in array `acc`. */
export function multiplyTiles(frame: ProductFrame): WgslShader {
  const { shader, kernel: { m, n, segments }, tile, count } = frame;
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  const span = { m: rows * down * 4, n: columns * across * 4 };
  const tiles = { m: Math.ceil(m / span.m), n: Math.ceil(n / span.n) };
  return shader.main(tiles.m * tiles.n * count, [columns * rows], () => {
    const reach = { m: tiles.m * span.m, n: tiles.n * span.n };
    const batch = openProduct(frame, tiles.m * tiles.n, reach, Math.max(4, tile.depth));
    const tileM = tiles.m === 1 ? "" : tiles.n === 1 ? `group % ${tiles.m}u` : `(group / ${tiles.n}u) % ${tiles.m}u`;
    shader.line(`let m0 = ${tileM ? `(${tileM}) * ${span.m}u` : "0u"};`);
    shader.line(`let n0 = ${tiles.n > 1 ? `(group % ${tiles.n}u) * ${span.n}u` : "0u"};`);
    shader.line(`let row = lane / ${columns}u;`);
    shader.line(`let column = lane % ${columns}u;`);
    shader.line(`var acc: array<array<mat4x4<f32>, ${across}>, ${down}>;`);
    segments.forEach((_, s) => {
      if (tile.depth > 0) stagedLoop(frame, s, batchArguments(batch));
      else directLoop(frame, s, batchArguments(batch));
    });
    shader.block(`for (var r = 0u; r < ${down}u; r++)`, () => {
      shader.block("for (var i = 0u; i < 4u; i++)", () => {
        shader.line(`let m = m0 + (r * ${rows}u + row) * 4u + i;`);
        if (m % span.m !== 0) shader.line(`if (m >= ${m}u) { break; }`);
        shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => {
          const block = `n0 / 4u + c * ${columns}u + column`;
          storeColumns(frame, batch, block, "acc[r][c][i]", n % span.n === 0 ? null : "continue");
        });
      });
    });
  });
}

const multiplyBlocks = "acc[r][c] += b[c] * a;";

/** The K loop where every block is read from where it lies. */
function directLoop({ shader, kernel, tile }: ProductFrame, s: number, batch: string): void {
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  shader.block(`for (var k = 0u; k < ${kernel.segments[s].k}u; k += 4u)`, () => {
    shader.line(`var b: array<mat4x4<f32>, ${across}>;`);
    shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => {
      shader.line(`b[c] = load_b${s}(${batch}k, n0 + (c * ${columns}u + column) * 4u);`);
    });
    shader.block(`for (var r = 0u; r < ${down}u; r++)`, () => {
      shader.line(`let a = load_a${s}(${batch}m0 + (r * ${rows}u + row) * 4u, k);`);
      shader.block(`for (var c = 0u; c < ${across}u; c++)`, () => shader.line(multiplyBlocks));
    });
  });
}

/** The K loop where a workgroup first stages its blocks in workgroup memory. */
function stagedLoop({ shader, kernel, tile }: ProductFrame, s: number, batch: string): void {
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
  shader.block(`for (var k = 0u; k < ${kernel.segments[s].k}u; k += ${tile.depth}u)`, () => {
    shader.block(`for (var t = lane; t < ${high * deep}u; t += ${lanes}u)`, () => {
      shader.line(`let m = m0 + t / ${deep}u * 4u;`);
      shader.line(`stage_a[t] = load_a${s}(${batch}m, k + t % ${deep}u * 4u);`);
    });
    shader.block(`for (var t = lane; t < ${deep * wide}u; t += ${lanes}u)`, () => {
      shader.line(`let n = n0 + t % ${wide}u * 4u;`);
      shader.line(`stage_b[t] = load_b${s}(${batch}k + t / ${wide}u * 4u, n);`);
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
