/**
 * What fraction of cuBLAS is that? A product of 4096 x 4096 x 4096 and the LoRA linear on it (r 16), f32, by this library on
 * WebGPU and by PyTorch on the same GPU with TF32 off, in turns in one run. PyTorch is that of `python3`, or of PEER_PY.
 *
 * `deno run --allow-read --allow-env --allow-run=python3 bench/webgpu_cublas.ts`; SIZE=1024 for a smaller product.
 */
import { matmul } from "../core/ops/contract.ts";
import { add, mul } from "../core/ops/elementwise.ts";
import { type Operand, type Tensor, upload } from "../core/tensor.ts";
import { openWebGpu } from "../kernels/device/webgpu.ts";
import { jit, read } from "../kernels/jit.ts";
import { median, row } from "./alternate.ts";

const size = Number(Deno.env.get("SIZE") ?? 4096);
const [rank, calls, rounds] = [16, 20, 7];

/** Answers each line `product` or `lora` with the milliseconds of a call. */
const script = `
import sys, time, torch
if not torch.cuda.is_available():
    sys.exit("PyTorch finds no CUDA device")
torch.backends.cuda.matmul.allow_tf32 = False
torch.set_float32_matmul_precision("highest")
n, r, calls = ${size}, ${rank}, ${calls}
x, w = torch.randn(n, n, device="cuda"), torch.randn(n, n, device="cuda")
a, b = torch.randn(n, r, device="cuda"), torch.randn(r, n, device="cuda")
work = {"product": lambda: x @ w, "lora": lambda: x @ w + 2 * (x @ a) @ b}
for line in sys.stdin:
    f = work[line.strip()]
    f(); torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(calls): f()
    torch.cuda.synchronize()
    print((time.perf_counter() - began) * 1000 / calls, flush=True)
`;

using device = await openWebGpu();
console.log(`${device.description}; ${device.tiles}`);
const random = (rows: number, columns: number) => {
  const data = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 1.7));
  return upload(device, { shape: [rows, columns], dtype: "f32", data });
};
const [x, w, a, b] = [random(size, size), random(size, size), random(size, rank), random(rank, size)];
const lora = (x: Operand, w: Operand, a: Operand, b: Operand) => add(matmul(x, w), matmul(mul(matmul(x, a), 2), b));
const work = {
  product: { fused: jit((x, w) => matmul(x, w)), args: [x, w] },
  lora: { fused: jit(lora), unfused: jit(lora, { fuse: false }), args: [x, w, a, b] },
};

/** Milliseconds of a call: many, and one wait for a single number of the last result. */
async function timed(f: (...args: Tensor[]) => Tensor, args: readonly Tensor[]): Promise<number> {
  const corner = jit((y: Operand) => matmul(matmul(row0(), y), column0()));
  const once = async (times: number) => {
    const began = performance.now();
    for (let i = 1; i < times; i++) f(...args).dispose();
    const last = f(...args);
    await read(corner(last), { release: true });
    last.dispose();
    return performance.now() - began;
  };
  await once(1);
  // The wait and the corner cost the same in both, so that the difference is calls alone.
  const [few, many] = [await once(1), await once(1 + calls)];
  return (many - few) / calls;
}
const [first, top] = [random(1, size), random(size, 1)];
const row0 = () => first, column0 = () => top;

const python = Deno.env.get("PEER_PY") ?? "python3";
const torch = new Deno.Command(python, { args: ["-c", script], stdin: "piped", stdout: "piped", stderr: "inherit" })
  .spawn();
const [to, from] = [torch.stdin.getWriter(), torch.stdout.pipeThrough(new TextDecoderStream()).getReader()];
/** The answer of PyTorch, or null where it has gone. */
async function ask(name: string): Promise<number | null> {
  try {
    await to.write(new TextEncoder().encode(`${name}\n`));
    const { value, done } = await from.read();
    return done ? null : Number(value);
  } catch {
    return null;
  }
}

const widths = [10, 12, 12, 12, 12];
console.log(row(["", "fused ms", "unfused ms", "cuBLAS ms", "of cuBLAS"], widths));
for (const [name, one] of Object.entries(work)) {
  const times: Record<string, number[]> = { fused: [], unfused: [], cublas: [] };
  for (let round = 0; round < rounds; round++) {
    times.fused.push(await timed(one.fused as never, one.args));
    if ("unfused" in one) times.unfused.push(await timed(one.unfused as never, one.args));
    const answer = await ask(name);
    if (answer !== null) times.cublas.push(answer);
  }
  const [fused, unfused, cublas] = Object.values(times).map((list) => list.length > 0 ? median(list) : null);
  const cell = (ms: number | null) => ms === null ? "" : ms.toFixed(2);
  const share = cublas === null ? "" : (cublas / fused!).toFixed(2);
  console.log(row([name, cell(fused), cell(unfused), cell(cublas), share], widths));
}
await to.close().catch(() => {});
