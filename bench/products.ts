/** Products of matrices as kernels, and kernels on buffers of their own: what the benchmarks of products share. */
import type { CpuDevice } from "../kernels/device/cpu/cpu.ts";
import type { ContractKernel, Program } from "../kernels/ir/kernel.ts";

/** How the factors of y[m,n] lie: x as [m,k] (`N`) or [k,m] (`T`), then W as [k,n] (`N`) or [n,k] (`T`). */
export type Form = "NN" | "NT" | "TN";

/** y = x·W. */
export function product(m: number, k: number, n: number, form: Form): ContractKernel {
  return {
    kind: "contract",
    operands: [
      { dtype: "f32", size: m * k, access: "read" },
      { dtype: "f32", size: k * n, access: "read" },
      { dtype: "f32", size: m * n, access: "write" },
    ],
    batch: [],
    m,
    n,
    segments: [{
      k,
      a: { operand: 0, index: { offset: 0, strides: form === "TN" ? [1, m] : [k, 1] } },
      b: { operand: 1, index: { offset: 0, strides: form === "NT" ? [1, k] : [n, 1] } },
    }],
    stores: [{ operand: 2, index: { offset: 0, strides: [n, 1] }, value: { kind: "result", type: "f32", phase: 0 } }],
  };
}

/** A kernel on buffers of its own, ready to run. */
export function prepare(device: CpuDevice, kernel: ContractKernel): () => void {
  const buffers = kernel.operands.map(({ size }) => {
    const buffer = device.allocate(size * 4);
    device.write(buffer, Float32Array.from({ length: size }, (_, i) => Math.sin(i * 1.7)));
    return buffer;
  });
  const program: Program = {
    arguments: kernel.operands,
    outputs: [],
    arenaBytes: 0,
    steps: [{ kernel, buffers: buffers.map((_, index) => ({ kind: "argument", index })) }],
  };
  const executable = device.compile(program);
  return () => executable.run(buffers, []);
}
