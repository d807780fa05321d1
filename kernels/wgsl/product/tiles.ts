import { blockAccess } from "../block.ts";
import { declareMultiply } from "./multiply.ts";
import { batchArguments, declareStore, longDepth, openProduct, type ProductFrame } from "./product.ts";
import type { WgslShader } from "../shader.ts";
import { maxRounds, type TileConfig } from "../tile.ts";

/** K of the parts in which a long one (`longDepth`) is summed. */
const partDepth = 1024;

/** Each invocation keeps `blocks` of 4 x 4 of the product in registers, one variable each: `c01` is row 0, column 1. */
export function multiplyTiles(frame: ProductFrame): WgslShader {
  const { shader, kernel: { m, n, segments }, tile, count } = frame;
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  const span = { m: rows * down * 4, n: columns * across * 4 };
  const tiles = { m: Math.ceil(m / span.m), n: Math.ceil(n / span.n) };
  return shader.main(tiles.m * tiles.n * count, [columns * rows], () => {
    const ways = segments.map(({ k }) => wayOf(tile, k));
    shader.tiling = `${across} x ${down} blocks of 4 x 4, ${columns} x ${rows} lanes, ${ways[0].words}`;
    const reach = { m: tiles.m * span.m, n: tiles.n * span.n };
    const batch = openProduct(frame, tiles.m * tiles.n, reach, (k) => {
      const { step } = wayOf(tile, k);
      return step * unrollOf(k, step);
    });
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
    ways.forEach(({ loop }, s) => loop(frame, s, batchArguments(batch)));
    shader.line(
      grid(frame, (r, c) => `${store}(${batchArguments(batch)}${rowOf(frame, r)}, ${columnOf(frame, c)}, c${r}${c});`)
        .join("\n"),
    );
  });
}

/** Lanes from which on it pays that each reads a part of the rows and passes it on. */
const minSharers = 4;

/** How the operands of a K reach the lanes: the loop over it, the elements of a step of the loop, and a word for it. */
function wayOf(tile: TileConfig, k: number) {
  if (tile.depth > 0) return { loop: stagedLoop, step: tile.depth, words: `${tile.depth} of k staged` };
  const sharers = sharersOf(tile);
  const step = 4 * sharers;
  // An adapter's rank that does not fill its steps is not worth their zeros.
  if (sharers >= minSharers && (k % step === 0 || k > fewSteps * step)) {
    return { loop: sharedLoop, step, words: `rows shared by ${sharers} lanes` };
  }
  return { loop: directLoop, step: 4, words: "in place" };
}

/** Lanes of a subgroup that multiply the same rows. */
function sharersOf({ workgroup: [columns], subgroups }: TileConfig): number {
  return Math.min(columns, subgroups);
}

/** One text for each block of an invocation, row by row. */
function grid({ tile: { blocks: [across, down] } }: ProductFrame, text: (r: number, c: number) => string): string[] {
  return Array.from({ length: across * down }, (_, i) => text(Math.floor(i / across), i % across));
}

/** Declares the sums of all blocks, those of a row on a line. */
function declareSums(frame: ProductFrame, prefix: string): void {
  const texts = grid(frame, (r, c) => `var ${prefix}${r}${c} = mat4x4<f32>();`);
  const [across, down] = frame.tile.blocks;
  for (let r = 0; r < down; r++) frame.shader.line(texts.slice(r * across, (r + 1) * across).join(" "));
}

/** `m0 + (8u + row) * 4u`: the first row of block r, whose neighbours are those of the neighbouring lanes. */
function rowOf({ tile: { workgroup: [, rows] } }: ProductFrame, r: number): string {
  return "m0" + offset(rows, r, "row");
}

function columnOf({ tile: { workgroup: [columns] } }: ProductFrame, c: number): string {
  return "n0" + offset(columns, c, "column");
}

function offset(lanes: number, block: number, lane: string): string {
  if (lanes === 1) return block === 0 ? "" : ` + ${block * 4}u`;
  return block === 0 ? ` + ${lane} * 4u` : ` + (${block * lanes}u + ${lane}) * 4u`;
}

/** Steps of the K loop that one round takes, so that no invocation runs more rounds than every adapter allows. */
function unrollOf(k: number, step: number): number {
  return Math.ceil(k / step / maxRounds);
}

/** Steps up to which K is written out: a loop of its own costs a workgroup more than the steps of an adapter's rank. */
const fewSteps = 2;

/** The loop over K, in parts where it is long. `body` adds the step at `k` to the sums of the prefix it is given. */
function loopOverK(frame: ProductFrame, k: number, step: number, body: (sums: string, k: string) => void): void {
  const { shader } = frame;
  if (k <= fewSteps * step) {
    for (let at = 0; at < k; at += step) shader.block("", () => body("c", `${at}u`));
    return;
  }
  const unroll = unrollOf(k, step);
  const round = (sums: string) => {
    if (unroll === 1) return body(sums, "k");
    for (let u = 0; u < unroll; u++) shader.block("", () => body(sums, `k + ${u * step}u`));
  };
  if (k <= longDepth) return shader.block(`for (var k = 0u; k < ${k}u; k += ${step * unroll}u)`, () => round("c"));
  const part = Math.ceil(partDepth / (step * unroll)) * step * unroll;
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
  { shader, tile }: ProductFrame,
  sums: string,
  p: (r: number) => string,
  q: (c: number) => string,
) {
  const [across, down] = tile.blocks;
  for (let c = 0; c < across; c++) shader.line(`let q${c} = ${q(c)};`);
  for (let r = 0; r < down; r++) {
    shader.line(`let p${r} = ${p(r)};`);
    const row = Array.from({ length: across }, (_, c) => `${sums}${r}${c}`);
    shader.line(row.map((sum, c) => `${sum} = multiply(${sum}, p${r}, q${c});`).join(" "));
  }
}

/** The K loop where every block is read from where it lies. */
function directLoop(frame: ProductFrame, s: number, batch: string): void {
  loopOverK(frame, frame.kernel.segments[s].k, 4, (sums, k) => {
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
function sharedLoop(frame: ProductFrame, s: number, batch: string): void {
  const { shader, kernel, tile } = frame;
  const sharers = sharersOf(tile);
  const vectors = [0, 1, 2, 3].map((i) => `subgroupShuffle(x[${i}], lane)`).join(", ");
  shader.declare(
    "share",
    `\nfn share(x: mat4x4<f32>, lane: u32) -> mat4x4<f32> {\n  return mat4x4<f32>(\n    ${vectors});\n}`,
  );
  loopOverK(frame, kernel.segments[s].k, 4 * sharers, (sums, k) => {
    for (let r = 0; r < tile.blocks[1]; r++) {
      shader.line(`let own${r} = load_a${s}(${batch}${rowOf(frame, r)}, ${k} + lane % ${sharers}u * 4u);`);
    }
    shader.block(`for (var d = 0u; d < ${sharers}u; d++)`, () => {
      const turn = sharers < tile.subgroups ? `lane % ${tile.subgroups}u / ${sharers}u * ${sharers}u + d` : "d";
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
function stagedLoop(frame: ProductFrame, s: number, batch: string): void {
  const { shader, kernel, tile } = frame;
  const [columns, rows] = tile.workgroup;
  const [across, down] = tile.blocks;
  const lanes = columns * rows;
  const deep = tile.depth / 4;
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
  loopOverK(frame, k, tile.depth, (sums, k) => {
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
