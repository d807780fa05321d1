import type { ScatterKernel } from "../ir/kernel.ts";
import type { Schedule } from "./schedule.ts";
import { ShaderWriter, type WgslShader } from "./shader.ts";

/**
 * A scatter without atomics, so that the bits are the same every run: the first occurrence of each index adds that row
 * and all later ones of the same index, in order; every other row does nothing.
 */
export function emitScatter(kernel: ScatterKernel, schedule: Schedule<"scatter">): WgslShader {
  const { count, cols, targets } = kernel, { unroll, workgroupSize } = schedule;
  const names = ["indices", "updates", "out"];
  const shader = new ShaderWriter(
    `scatter [${count},${cols}] to [${targets},${cols}]`,
    kernel.operands,
    schedule,
    (i) => names[i],
  );
  const parts = Math.ceil(cols / workgroupSize);
  const each = (from: string, to: string, line: (j: string) => string) =>
    shader.block(`for (var j = ${from}; j < ${to}; j += ${unroll}u)`, () => {
      shader.line(line("j"));
      for (let u = 1; u < unroll; u++) shader.line(`if (j + ${u}u < ${to}) { ${line(`(j + ${u}u)`)} }`);
    });
  const made = shader.main(() => {
    shader.line(`let i = group / ${parts}u;`);
    shader.line(`let c = (group % ${parts}u) * ${workgroupSize}u + lane;`);
    shader.line(`let target_row = ${shader.read(0, "i")};`);
    shader.line(`if (c >= ${cols}u) { return; }`);
    shader.line(`if (target_row < 0 || target_row >= ${targets}) { return; }`);
    each("0u", "i", (j) => `if (${shader.read(0, j)} == target_row) { return; }`);
    shader.line("var sum = 0.0;");
    each(
      "i",
      `${count}u`,
      (j) => `if (${shader.read(0, j)} == target_row) { sum += ${shader.read(1, `${j} * ${cols}u + c`)}; }`,
    );
    shader.line(shader.write(2, `u32(target_row) * ${cols}u + c`, "sum"));
  });
  return { ...made, clear: 2 };
}
