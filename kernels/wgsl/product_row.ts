import { blockAccess } from "./block.ts";
import { batchArguments, openProduct, type ProductFrame, storeColumns } from "./product.ts";
import type { WgslShader } from "./shader.ts";

/**
 * A product of a single row: each invocation sums `slices`-th parts of K for four columns, and the parts meet in
 * workgroup memory. Reading b is all the time it takes, so neighbouring lanes go where b is contiguous.
 */
export function multiplyRow(frame: ProductFrame): WgslShader {
  const { shader, kernel: { n, segments, batch: sizes }, tile, count } = frame;
  const lanes = tile.workgroup[0] * tile.workgroup[1];
  const slices = Math.min(tile.slices, lanes);
  const columns = lanes / slices;
  const blocks = Math.ceil(n / 4);
  const groups = Math.ceil(blocks / columns);
  const overshoots = groups * columns * 4 !== n;
  const alongK = blockAccess(segments[0].b.index, sizes.length, segments[0].k, n) === "across";
  return shader.main(groups * count, [lanes], () => {
    // Of a block of a only its first row is used: whatever the other three load falls away.
    const batch = openProduct(frame, groups, { m: 1, n: groups * columns * 4 }, 4 * slices);
    const [slice, column] = alongK ? ["%", "/"] : ["/", "%"];
    const width = alongK ? slices : columns;
    if (slices > 1) shader.line(`let slice = lane ${slice} ${width}u;`);
    shader.line(`let column = ${slices > 1 ? `lane ${column} ${width}u` : "lane"};`);
    shader.line(`let block = ${groups > 1 ? `group % ${groups}u * ${columns}u + ` : ""}column;`);
    shader.line("var sum = vec4<f32>();");
    segments.forEach(({ k }, s) => {
      const start = slices > 1 ? "slice * 4u" : "0u";
      shader.block(`for (var k = ${start}; k < ${k}u; k += ${4 * slices}u)`, () => {
        const args = batchArguments(batch);
        shader.line(`sum += load_b${s}(${args}k, block * 4u) * load_a${s}(${args}0u, k)[0];`);
      });
    });
    if (slices > 1) {
      shader.declare("parts", `\nvar<workgroup> parts: array<vec4<f32>, ${lanes}>;`);
      shader.line(`let part = slice * ${columns}u + column;`);
      shader.line("parts[part] = sum;\nworkgroupBarrier();");
      shader.block(`for (var step = ${lanes / 2}u; step >= ${columns}u; step /= 2u)`, () => {
        shader.line("if (part < step) { parts[part] += parts[part + step]; }");
        shader.line("workgroupBarrier();");
      });
      shader.line("if (slice > 0u) { return; }");
    }
    shader.line("let m = 0u;");
    storeColumns(frame, batch, "block", slices > 1 ? "parts[part]" : "sum", overshoots ? "return" : null);
  });
}
