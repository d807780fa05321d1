import { blockAccess } from "../block.ts";
import { declareMultiply } from "./multiply.ts";
import { batchArguments, declareStore, openProduct, type ProductFrame } from "./product.ts";
import type { TileSchedule } from "./product_schedule.ts";
import type { Schedule } from "../schedule.ts";
import type { WgslShader } from "../shader.ts";

type TileFrame = ProductFrame<TileSchedule & Pick<Schedule<"contract">, "subgroups">>;

/** Each invocation keeps `blocks` of 4 x 4 of the product in registers, one variable each: `c01` is row 0, column 1. */
export function multiplyTiles(frame: TileFrame): WgslShader {
  const { shader, kernel: { m, n } } = frame;
  const { workgroup: [columns, rows], blocks: [across, down], segments, depth, sharers } = frame.schedule;
  const words = { staged: `${depth} of k staged`, shared: `rows shared by ${sharers} lanes`, inPlace: "in place" };
  const span = { m: rows * down * 4, n: columns * across * 4 };
  const tiles = { m: Math.ceil(m / span.m), n: Math.ceil(n / span.n) };
  return shader.main(() => {
    shader.tiling = `${across} x ${down} blocks of 4 x 4, ${columns} x ${rows} lanes, ${words[segments[0].reads]}`;
    const reach = { m: tiles.m * span.m, n: tiles.n * span.n };
    const batch = openProduct(frame, tiles.m * tiles.n, reach, (s) => segments[s].step * segments[s].unroll);
    const store = declareStore(frame, batch, reach);
    // Neighbouring workgroups share a panel of the larger operand, which is then read once: it is the other that comes again.
    const order = m <= n ? ["m", "n"] as const : ["n", "m"] as const;
    let before = 1;
    for (const axis of order) {
      const tile = before === 1 ? `group % ${tiles[axis]}u` : `group / ${before}u % ${tiles[axis]}u`;
      shader.line(`let ${axis}0 = ${tiles[axis] === 1 ? "0u" : `${tile} * ${span[axis]}u`};`);
      before *= tiles[axis];
    }
    if (rows > 1) shader.line(`let row = ${columns > 1 ? `lane / ${columns}u` : "lane"};`);
    if (columns > 1) shader.line(`let column = ${rows > 1 ? `lane % ${columns}u` : "lane"};`);
    declareMultiply(shader);
    declareSums(frame, "c");
    segments.forEach(({ reads }, s) => loops[reads](frame, s, batchArguments(batch)));
    shader.line(
      grid(frame, (r, c) => `${store}(${batchArguments(batch)}${rowOf(frame, r)}, ${columnOf(frame, c)}, c${r}${c});`)
        .join("\n"),
    );
  });
}

const loops = { staged: stagedLoop, shared: sharedLoop, inPlace: directLoop };

/** One text for each block of an invocation, row by row. */
function grid({ schedule: { blocks: [across, down] } }: TileFrame, text: (r: number, c: number) => string): string[] {
  return Array.from({ length: across * down }, (_, i) => text(Math.floor(i / across), i % across));
}

/** Declares the sums of all blocks, those of a row on a line. */
function declareSums(frame: TileFrame, prefix: string): void {
  const texts = grid(frame, (r, c) => `var ${prefix}${r}${c} = mat4x4<f32>();`);
  const [across, down] = frame.schedule.blocks;
  for (let r = 0; r < down; r++) frame.shader.line(texts.slice(r * across, (r + 1) * across).join(" "));
}

/** `m0 + (8u + row) * 4u`: the first row of block r, whose neighbours are those of the neighbouring lanes. */
function rowOf({ schedule: { workgroup: [, rows] } }: TileFrame, r: number): string {
  return "m0" + offset(rows, r, "row");
}

function columnOf({ schedule: { workgroup: [columns] } }: TileFrame, c: number): string {
  return "n0" + offset(columns, c, "column");
}

function offset(lanes: number, block: number, lane: string): string {
  if (lanes === 1) return block === 0 ? "" : ` + ${block * 4}u`;
  return block === 0 ? ` + ${lane} * 4u` : ` + (${block * lanes}u + ${lane}) * 4u`;
}

/** The loop over K, in parts where it is long. `body` adds the step at `k` to the sums of the prefix it is given. */
function loopOverK(frame: TileFrame, s: number, body: (sums: string, k: string) => void): void {
  const { shader, kernel: { segments: { [s]: { k } } }, schedule: { segments: { [s]: { step, unroll, part } } } } =
    frame;
  if (k <= step * unroll) {
    for (let at = 0; at < k; at += step) shader.block("", () => body("c", `${at}u`));
    return;
  }
  const round = (sums: string) => {
    if (unroll === 1) return body(sums, "k");
    for (let u = 0; u < unroll; u++) shader.block("", () => body(sums, `k + ${u * step}u`));
  };
  if (part === null) return shader.block(`for (var k = 0u; k < ${k}u; k += ${step * unroll}u)`, () => round("c"));
  shader.block(`for (var first = 0u; first < ${k}u; first += ${part}u)`, () => {
    declareSums(frame, "s");
    const end = k % part === 0 ? `first + ${part}u` : `min(first + ${part}u, ${k}u)`;
    shader.line(`let end = ${end};`);
    shader.block(`for (var k = first; k < end; k += ${step * unroll}u)`, () => round("s"));
    shader.line(grid(frame, (r, c) => `c${r}${c} += s${r}${c};`).join("\n"));
  });
}

/** Adds the products of all blocks of a step; `p` and `q` write the blocks of rows and of columns. */
function multiplyBlocks(
  { shader, schedule }: TileFrame,
  sums: string,
  p: (r: number) => string,
  q: (c: number) => string,
) {
  const [across, down] = schedule.blocks;
  for (let c = 0; c < across; c++) shader.line(`let q${c} = ${q(c)};`);
  for (let r = 0; r < down; r++) {
    shader.line(`let p${r} = ${p(r)};`);
    const row = Array.from({ length: across }, (_, c) => `${sums}${r}${c}`);
    shader.line(row.map((sum, c) => `${sum} = multiply(${sum}, p${r}, q${c});`).join(" "));
  }
}

/** The K loop where every block is read from where it lies. */
function directLoop(frame: TileFrame, s: number, batch: string): void {
  loopOverK(frame, s, (sums, k) => {
    multiplyBlocks(
      frame,
      sums,
      (r) => `load_a${s}(${batch}${rowOf(frame, r)}, ${k})`,
      (c) => `load_b${s}(${batch}${k}, ${columnOf(frame, c)})`,
    );
  });
}

/**
 * The K loop where each of the lanes that multiply the same rows reads a part of them, along K, and gives it to the others
 * of its subgroup when its turn comes. The blocks of b are read from where they lie.
 */
function sharedLoop(frame: TileFrame, s: number, batch: string): void {
  const { shader, schedule: { sharers, subgroups, blocks } } = frame;
  const vectors = [0, 1, 2, 3].map((i) => `subgroupShuffle(x[${i}], lane)`).join(", ");
  shader.declare(
    "share",
    `\nfn share(x: mat4x4<f32>, lane: u32) -> mat4x4<f32> {\n  return mat4x4<f32>(\n    ${vectors});\n}`,
  );
  loopOverK(frame, s, (sums, k) => {
    for (let r = 0; r < blocks[1]; r++) {
      shader.line(`let own${r} = load_a${s}(${batch}${rowOf(frame, r)}, ${k} + lane % ${sharers}u * 4u);`);
    }
    shader.block(`for (var d = 0u; d < ${sharers}u; d++)`, () => {
      const turn = sharers < subgroups ? `lane % ${subgroups}u / ${sharers}u * ${sharers}u + d` : "d";
      multiplyBlocks(
        frame,
        sums,
        (r) => `share(own${r}, ${turn})`,
        (c) => `load_b${s}(${batch}${k} + d * 4u, ${columnOf(frame, c)})`,
      );
    });
  });
}

/**
 * The K loop where a workgroup first stages its blocks in workgroup memory: those of a as vectors along k, those of b as
 * vectors along columns, so that neighbouring lanes read neighbouring vectors.
 */
function stagedLoop(frame: TileFrame, s: number, batch: string): void {
  const { shader, kernel, schedule: { workgroup: [columns, rows], blocks: [across, down], depth } } = frame;
  const lanes = columns * rows;
  const deep = depth / 4;
  const [wide, high] = [columns * across, rows * down];
  const { k, a, b } = kernel.segments[s];
  const rank = kernel.batch.length;
  const block = (name: string, step: number) =>
    `fn ${name}_block(i: u32) -> mat4x4<f32> {\n  return mat4x4<f32>(\n    ${
      [0, 1, 2, 3].map((j) => `${name}[i${j === 0 ? "" : ` + ${j * step}u`}]`).join(", ")
    });\n}`;
  shader.declare(
    "stage",
    `\nvar<workgroup> stage_a: array<vec4<f32>, ${high * 4 * deep}>;\n` +
      `var<workgroup> stage_b: array<vec4<f32>, ${4 * deep * wide}>;\n` +
      `${block("stage_a", 1)}\n${block("stage_b", wide)}`,
  );
  // Neighbouring lanes load neighbours in memory.
  const [am, ak] = blockAccess(a.index, rank, kernel.m, k) === "across"
    ? [`t % ${high}u`, `t / ${high}u`]
    : [`t / ${deep}u`, `t % ${deep}u`];
  const [bk, bn] = blockAccess(b.index, rank, k, kernel.n) === "across"
    ? [`t % ${deep}u`, `t / ${deep}u`]
    : [`t / ${wide}u`, `t % ${wide}u`];
  loopOverK(frame, s, (sums, k) => {
    shader.block(`for (var t = lane; t < ${high * deep}u; t += ${lanes}u)`, () => {
      shader.line(`let rows = load_a${s}(${batch}m0 + ${am} * 4u, ${k} + ${ak} * 4u);`);
      shader.line(`let i = (${ak} * ${high}u + ${am}) * 4u;`);
      shader.line([0, 1, 2, 3].map((j) => `stage_a[i${j ? ` + ${j}u` : ""}] = rows[${j}];`).join("\n"));
    });
    shader.block(`for (var t = lane; t < ${deep * wide}u; t += ${lanes}u)`, () => {
      shader.line(`let rows = load_b${s}(${batch}${k} + ${bk} * 4u, n0 + ${bn} * 4u);`);
      shader.line(`let i = ${bk} * ${4 * wide}u + ${bn};`);
      shader.line([0, 1, 2, 3].map((j) => `stage_b[i${j ? ` + ${j * wide}u` : ""}] = rows[${j}];`).join("\n"));
    });
    shader.line("workgroupBarrier();");
    shader.block(`for (var d = 0u; d < ${deep}u; d++)`, () => {
      const at = (lanes: number, block: number, lane: string) =>
        lanes === 1 ? `${block}u` : `${block * lanes}u + ${lane}`;
      multiplyBlocks(
        frame,
        sums,
        (r) => `stage_a_block((d * ${high}u + ${at(rows, r, "row")}) * 4u)`,
        (c) => `stage_b_block(d * ${4 * wide}u + ${at(columns, c, "column")})`,
      );
    });
    shader.line("workgroupBarrier();");
  });
}
