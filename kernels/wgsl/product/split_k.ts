import { declareMultiply } from "./multiply.ts";
import { batchArguments, declareStore, openProduct, type ProductFrame } from "./product.ts";
import type { SplitKSchedule } from "./product_schedule.ts";
import type { Schedule } from "../schedule.ts";
import type { ShaderWriter, WgslShader } from "../shader.ts";

type SplitKFrame = ProductFrame<SplitKSchedule & Pick<Schedule<"contract">, "workgroupSize" | "subgroups">>;

/**
 * Each invocation sums one slice of K for one block, of four columns and four rows, or for several of the single row, and
 * the slices meet afterwards. Reading is all the time it takes, so neighbouring lanes go where the larger operand is
 * contiguous.
 */
export function multiplySplitK(frame: SplitKFrame): WgslShader {
  const { shader, kernel: { m, n, segments }, schedule } = frame;
  const { splitK, alongK, workgroupSize: lanes, subgroups } = schedule;
  const [high, wide] = [Math.ceil(m / 4), Math.ceil(n / 4)];
  const single = m === 1, blocks = high * wide, perGroup = lanes / splitK;
  const columns = Array.from({ length: schedule.blocks }, (_, c) => c);
  const groups = Math.ceil(blocks / (perGroup * columns.length));
  const type = single ? "vec4<f32>" : "mat4x4<f32>";
  const one = single ? `${columns.length * 4} columns of one row` : "a block of 4 x 4";
  const [apart, reach] = alongK ? [1, splitK] : [perGroup, lanes];
  const joined = Math.min(subgroups, reach) > apart ? `, joined in subgroups of ${subgroups}` : "";
  shader.tiling = `${one} and one of ${splitK} slices of k a lane${joined}`;
  return shader.main(() => {
    // Of a block of a single row only the first vector is used: whatever the other three load falls away.
    const batch = openProduct(frame, groups, { m: single ? 1 : high * 4, n: wide * 4 }, () => 4 * splitK);
    const [slice, inGroup] = alongK
      ? [`lane % ${splitK}u`, `lane / ${splitK}u`]
      : [`lane / ${perGroup}u`, `lane % ${perGroup}u`];
    if (splitK > 1) shader.line(`let slice = ${slice};`);
    shader.line(`let part = ${splitK > 1 ? inGroup : "lane"};`);
    // Lanes past the last block repeat it: they must reach the barriers.
    const overshoots = blocks % (perGroup * columns.length) !== 0;
    const first = groups > 1 ? `group % ${groups}u * ${perGroup * columns.length}u + ` : "";
    for (const c of columns) {
      shader.line(`let at${c} = ${first}part${c > 0 ? ` + ${c * perGroup}u` : ""};`);
      const block = overshoots ? `min(at${c}, ${blocks - 1}u)` : `at${c}`;
      if (!single) shader.line(`let m${c} = ${m >= n ? `${block} % ${high}u` : `${block} / ${wide}u`} * 4u;`);
      shader.line(`let n${c} = ${single ? block : m >= n ? `${block} / ${high}u` : `${block} % ${wide}u`} * 4u;`);
      shader.line(`var sum${c} = ${type}();`);
    }
    declareMultiply(shader);
    const args = batchArguments(batch);
    segments.forEach(({ k }, s) => {
      const start = splitK > 1 ? "slice * 4u" : "0u";
      shader.block(`for (var k = ${start}; k < ${k}u; k += ${4 * splitK}u)`, () => {
        shader.line(`let p = load_a${s}(${args}${single ? "0u, k)[0]" : "m0, k)"};`);
        for (const c of columns) {
          const q = `load_b${s}(${args}k, n${c})`;
          shader.line(`sum${c} = ${single ? "multiply_row" : "multiply"}(sum${c}, p, ${q});`);
        }
      });
    });
    if (splitK > 1) {
      joinPartialSums(frame, columns.map((c) => `sum${c}`), lanes, [apart, reach]);
      shader.line("if (slice > 0u) { return; }");
    }
    const store = declareStore(frame, batch, { m: single ? 1 : high * 4, n: wide * 4 });
    for (const c of columns) {
      const statement = `${store}(${args}${single ? "0u" : "m0"}, n${c}, sum${c});`;
      if (overshoots) shader.block(`if (at${c} < ${blocks}u)`, () => shader.line(statement));
      else shader.line(statement);
    }
  });
}

/**
 * Adds up the slices, which lie `apart` lanes from each other in a run of `reach` lanes: lanes of one subgroup exchange
 * their sums, what is further apart meets in workgroup memory. Afterwards the lanes of slice 0 hold the whole sums.
 */
function joinPartialSums(
  { shader, kernel, schedule: { subgroups } }: SplitKFrame,
  sums: readonly string[],
  lanes: number,
  [apart, reach]: readonly [number, number],
): void {
  const single = kernel.m === 1;
  const type = single ? "vec4<f32>" : "mat4x4<f32>";
  const inside = Math.min(subgroups, reach);
  if (inside > apart) {
    declareExchange(shader, apart, inside, subgroups);
    const call = (sum: string) =>
      single ? `exchange(${sum})` : `mat4x4<f32>(${[0, 1, 2, 3].map((i) => `exchange(${sum}[${i}])`).join(", ")})`;
    for (const sum of sums) shader.line(`${sum} = ${call(sum)};`);
  }
  const outside = Math.max(apart, inside);
  if (outside === reach) return;
  const place = (i: number, step = "") => `parts[lane${i > 0 ? ` + ${i * lanes}u` : ""}${step}]`;
  shader.declare("parts", `\nvar<workgroup> parts: array<${type}, ${lanes * sums.length}>;`);
  shader.line(sums.map((sum, i) => `${place(i)} = ${sum};`).join("\n"));
  shader.line("workgroupBarrier();");
  shader.block(`for (var step = ${reach / 2}u; step >= ${outside}u; step /= 2u)`, () => {
    shader.block(`if (lane${reach < lanes ? ` % ${reach}u` : ""} < step)`, () => {
      shader.line(sums.map((_, i) => `${place(i)} += ${place(i, " + step")};`).join("\n"));
    });
    shader.line("workgroupBarrier();");
  });
  shader.line(sums.map((sum, i) => `${sum} = ${place(i)};`).join("\n"));
}

/** Declares the sum over the lanes of a subgroup that are a multiple of `apart` from each other, in runs of `reach`. */
function declareExchange(shader: ShaderWriter, apart: number, reach: number, subgroups: number): void {
  shader.declareBlock("exchange", "fn exchange(x: vec4<f32>) -> vec4<f32>", () => {
    if (apart === 1 && reach === subgroups) return shader.line("return subgroupAdd(x);");
    shader.line("var sum = x;");
    for (let step = apart; step < reach; step *= 2) shader.line(`sum += subgroupShuffleXor(sum, ${step}u);`);
    shader.line("return sum;");
  });
}
