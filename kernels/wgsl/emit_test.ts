import { assert, assertEquals } from "@std/assert";
import { matmulKernel } from "../../testing/cases/product.ts";
import { kernelCases } from "../../testing/kernel_cases.ts";
import type { MapKernel } from "../ir/kernel.ts";
import { emitWgsl } from "./emit.ts";
import { fitTile, gpuTile, softwareTile } from "./tile.ts";

Deno.test("no line of any shader is longer than a page is wide", () => {
  for (const { name, kernel } of kernelCases()) {
    for (const tile of [gpuTile, softwareTile, { ...gpuTile, name: "subgroups", depth: 0, subgroups: 32 }]) {
      const long = emitWgsl(kernel, tile).text.split("\n").filter((line) => line.length > 80);
      assertEquals(long, [], `${name} with the ${tile.name} tile`);
    }
  }
});

Deno.test("equal kernels have equal texts, and the text does not tell an argument from a slice of the arena", () => {
  const again = () => emitWgsl(matmulKernel([8, 8, 8]), gpuTile);
  assertEquals(again(), again());
  assert(!again().text.includes("var<storage, read>"));
});

Deno.test("operands in one buffer share one binding", () => {
  const whole = { offset: 0, strides: [1] };
  const load = (operand: number) => ({ kind: "load", type: "f32", operand, index: whole }) as const;
  const f32 = (access: "read" | "write") => ({ dtype: "f32", size: 8, access }) as const;
  const kernel: MapKernel = {
    kind: "map",
    operands: [f32("read"), f32("read"), f32("write")],
    shape: [8],
    stores: [{ operand: 2, index: whole, value: { kind: "op", type: "f32", op: "mul", args: [load(0), load(1)] } }],
  };
  const { text, bindings } = emitWgsl(kernel, gpuTile, [0, 0, 2]);
  assertEquals(bindings.map(({ operand }) => operand), [0, 2]);
  assert(text.includes("out2[i] = v0 * v0;"), text);
});

Deno.test("a map over whole arrays reads, computes and writes four elements at a time", () => {
  const whole = { offset: 0, strides: [1] };
  const kernel: MapKernel = {
    kind: "map",
    operands: [{ dtype: "f16", size: 10, access: "read" }, { dtype: "f32", size: 10, access: "inout" }],
    shape: [10],
    stores: [{
      operand: 1,
      index: whole,
      value: {
        kind: "op",
        type: "f32",
        op: "add",
        args: [
          { kind: "load", type: "f32", operand: 1, index: whole },
          { kind: "load", type: "f32", operand: 0, index: whole },
        ],
      },
    }],
  };
  assertEquals(
    emitWgsl(kernel, gpuTile).text,
    `// map [10]
// in0: f16[10]; in1: f32[10], inout
@group(0) @binding(0) var<storage, read_write> in0: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> in1: array<vec4<f32>>;

// Four f16 in two words.
fn halves(words: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) at: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let group = at.x;
  let i = group * 64u + lane;
  if (i >= 3u) { return; }
  let v0 = in1[i];
  let v1 = halves(in0[i]);
  in1[i] = v0 + v1;
}
`,
  );
});

Deno.test("a narrow or a low product turns its lanes, within the workgroup memory that every device has", () => {
  const tall = fitTile(gpuTile, 4096, 768, 8);
  assertEquals([tall.workgroup, tall.blocks, tall.depth], [[1, 64], [2, 2], 4]);
  const flat = fitTile(softwareTile, 4, 768, 7680);
  assertEquals([flat.workgroup, flat.blocks], [[8, 1], [2, 1]]);
  assertEquals(fitTile(gpuTile, 512, 768, 768), gpuTile);
});

Deno.test("the r-wide side of an adapter is cut along K on a GPU, a wide product into tiles", () => {
  const { text, grid } = emitWgsl(matmulKernel([512, 768, 8], "NT"), gpuTile);
  assert(text.includes("var<workgroup> parts: array<mat4x4<f32>, 64>;"), text);
  assertEquals(grid, [64, 1]);
  assertEquals(emitWgsl(matmulKernel([512, 768, 768]), gpuTile).grid, [96, 1]);
});

Deno.test("an adapter's rank is written out behind the loop over K", () => {
  const { text } = emitWgsl(matmulKernel([512, 768, 768], "NN", { lowRank: 8 }), softwareTile);
  assertEquals(text.match(/for \(var k/g)?.length, 1, text);
  assert(text.includes("load_b1(4u, "), text);
});

Deno.test("slices meet in their subgroup as far as it reaches, and in workgroup memory beyond", () => {
  const row = (n: number, tile: Partial<typeof gpuTile>) =>
    emitWgsl(matmulKernel([1, 4096, n], "NN"), { ...gpuTile, splitK: 16, ...tile });
  assert(!/subgroup/.test(row(2048, {}).text));
  const { text, tiling } = row(2048, { subgroups: 32 });
  // 64 lanes are 4 columns of 16 slices: those 4, 8 and 16 lanes away are near, those 32 away are not.
  assertEquals([...text.matchAll(/subgroupShuffleXor\(sum, (\d+)u\)/g)].map((found) => found[1]), ["4", "8", "16"]);
  assert(text.includes("for (var step = 32u; step >= 32u; step /= 2u)"), text);
  assertEquals(tiling, "8 columns of one row and one of 16 slices of k a lane, joined in subgroups of 32, 64 lanes");
  const whole = emitWgsl(matmulKernel([1, 4096, 2048], "NT"), { ...gpuTile, splitK: 32, subgroups: 32 }).text;
  assert(whole.includes("return subgroupAdd(x);") && !whole.includes("workgroupBarrier"), whole);
});

Deno.test("lanes that multiply the same rows share them in their subgroup, each group of its own", () => {
  const product = (tile: Partial<typeof gpuTile>) =>
    emitWgsl(matmulKernel([512, 768, 768], "NN", { lowRank: 8 }), { ...gpuTile, depth: 0, ...tile });
  const { text, tiling } = product({ subgroups: 32 });
  assertEquals(tiling, "2 x 2 blocks of 4 x 4, 8 x 8 lanes, rows shared by 8 lanes");
  assert(text.includes("share(own0, lane % 32u / 8u * 8u + d)") && !text.includes("workgroupBarrier"), text);
  assert(product({ subgroups: 4 }).text.includes("share(own0, d)"));
  assert(
    !/subgroup/.test(product({ subgroups: 0 }).text) && !/subgroup/.test(product({ subgroups: 32, depth: 16 }).text),
  );
});

Deno.test("an operand larger than a binding is read and written through windows", () => {
  const { text, bindings } = emitWgsl(matmulKernel([8, 16, 64]), { ...softwareTile, window: 2048 });
  assertEquals(bindings.map(({ operand, start }) => [operand, start]), [[0, 0], [1, 0], [1, 2048], [2, 0]]);
  assert(text.includes("  if (i < 128u) { return b0[i]; }\n  return b0_1[i - 128u];"), text);
});
