/** Packed operands: every type, read in order, across, by lookup, and in products of both directions. */
import { packedTypes } from "../../core/packed/blocks.ts";
import type { ContractKernel, Kernel } from "../../kernels/ir/kernel.ts";
import { at, type KernelCase, load, makeCase, put, read, write } from "./build.ts";
import { matmulKernel } from "./product.ts";

/** Packed test values reach 8 and are sums of two terms: so much larger than the f32 noise is what a sum may be off by. */
const largest = 16;

export function packedCases(): KernelCase[] {
  const cases: KernelCase[] = [];
  const product = (name: string, kernel: ContractKernel) =>
    cases.push(makeCase(`packed ${name}`, kernel, largest * (kernel.segments.reduce((sum, s) => sum + s.k, 4))));
  const map = (name: string, kernel: Kernel) => cases.push(makeCase(`packed ${name}`, kernel, largest));
  for (const dtype of packedTypes) {
    const copy = (shape: number[], from: number[], size: number, offset = 0): Kernel => ({
      kind: "map",
      operands: [read(size, dtype), write(shape.reduce((a, b) => a * b, 1))],
      shape,
      stores: [
        put(1, at(shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1))), load(0, at(from, offset))),
      ],
    });
    map(`${dtype} in order`, copy([512], [1], 512));
    map(`${dtype} across`, copy([256, 3], [1, 256], 768));
    map(`${dtype} within`, copy([5, 7], [32, 1], 512, 70));
    map(`${dtype} looked up`, {
      kind: "map",
      operands: [read(1024, dtype), read(3, "i32"), write(768)],
      shape: [3, 256],
      stores: [put(2, at([256, 1]), {
        kind: "load",
        type: "f32",
        operand: 0,
        index: { offset: 0, strides: [0, 1], dynamic: [{ value: load(1, at([1, 0]), "i32"), stride: 256 }] },
      })],
    });
    for (const m of [1, 3, 40]) {
      product(`${dtype} NT ${m}`, matmulKernel([m, 256, 41], "NT", { dtype }));
      product(`${dtype} NN ${m}`, matmulKernel([m, 20, 256], "NN", { dtype }));
    }
    for (const [m, k, n] of [[0, 256, 3], [2, 0, 3], [2, 256, 0]] as const) {
      product(`${dtype} NT ${m}x${k}x${n}`, matmulKernel([m, k, n], "NT", { dtype }));
    }
    map(`${dtype} of no rows`, copy([0, 256], [256, 1], 0));
    map(`${dtype} one element`, copy([1], [1], 256, 3));
    product(`${dtype} on the left`, onTheLeft(matmulKernel([6, 256, 9], "NT", { dtype })));
  }
  for (const dtype of ["q4_0", "q4_1", "q8_0", "nf4", "nf4_f32", "fp4_f32"] as const) {
    product(`${dtype} NT, short rows`, matmulKernel([33, 96, 40], "NT", { dtype }));
    product(`${dtype} NN, short rows`, matmulKernel([33, 50, 96], "NN", { dtype }));
    product(`${dtype} NT M = 1, short rows`, matmulKernel([1, 96, 40], "NT", { dtype }));
    product(`${dtype} NT M = 2, many columns`, matmulKernel([2, 96, 203], "NT", { dtype }));
  }
  product(
    "q4_1 NT with a low-rank segment",
    matmulKernel([9, 256, 64], "NT", { dtype: "q4_1", lowRank: 8, bias: true }),
  );
  product("q4_1 NT M = 1 and a low-rank segment", matmulKernel([1, 512, 70], "NT", { dtype: "q4_1", lowRank: 3 }));
  product("q6_k NN with a low-rank segment", matmulKernel([30, 40, 512], "NN", { dtype: "q6_k", lowRank: 4 }));
  for (const layout of ["NN", "NT"] as const) {
    product(`q8_0 ${layout} of depth 1600`, matmulKernel([40, 1600, 96], layout, { dtype: "q8_0" }));
    for (const k of [64, 1600]) {
      product(`q4_1 ${layout}, two of depth ${k}`, twice(matmulKernel([40, k, 96], layout, { dtype: "q4_1" })));
    }
  }
  product("nf4 NT, blocks across rows", matmulKernel([5, 10, 13], "NT", { dtype: "nf4" }));
  product("nf4 NN, blocks across rows", matmulKernel([5, 10, 13], "NN", { dtype: "nf4" }));
  product("nf4_f32 NT, blocks across rows", matmulKernel([5, 10, 13], "NT", { dtype: "nf4_f32" }));
  product("fp4_f32 NN, blocks across rows", matmulKernel([5, 10, 13], "NN", { dtype: "fp4_f32" }));
  product("q8_0 NT of a long k", matmulKernel([3, 4608, 8], "NT", { dtype: "q8_0" }));
  product("q8_0 NT of a long k and many rows", matmulKernel([40, 4608, 12], "NT", { dtype: "q8_0" }));
  return cases;
}

/** A product added to another of the same shape, whose operands are the same kind. */
function twice(kernel: ContractKernel): ContractKernel {
  const [a, b, out] = kernel.operands;
  const [first] = kernel.segments;
  const second = { k: first.k, a: { ...first.a, operand: 3 }, b: { ...first.b, operand: 4 } };
  return { ...kernel, operands: [a, b, out, a, b], segments: [first, second] };
}

/** The same product transposed: out[n, m] = b'·a'. */
function onTheLeft(kernel: ContractKernel): ContractKernel {
  const swap = ([x, y]: readonly number[]) => [y, x];
  return {
    ...kernel,
    m: kernel.n,
    n: kernel.m,
    segments: kernel.segments.map(({ k, a, b }) => ({
      k,
      a: { operand: b.operand, index: at(swap(b.index.strides)) },
      b: { operand: a.operand, index: at(swap(a.index.strides)) },
    })),
    stores: kernel.stores.map((s) => ({ ...s, index: at(swap(s.index.strides)) })),
  };
}
