/**
 * Other tools' LoRA linear on the same adapter. They are no part of this project: their packages are loaded from npm when
 * they are asked for, and a tool that can't be had is left out with a line.
 */

/** M, K, N and r. */
export type LoraShape = readonly [m: number, k: number, n: number, r: number];

/** One tool's ways to do the work; each call runs so many times and waits once. */
export interface Runner {
  readonly name: string;
  readonly forward: (calls: number) => Promise<void>;
  readonly both?: (calls: number) => Promise<void>;
}

/** What everybody is given: x [m,k], w [k,n], a [k,r], b [r,n] and the cotangent of y [m,n]. */
export type Inputs = Readonly<Record<"x" | "w" | "a" | "b" | "ct", Float32Array>>;

const scale = 2;

/** A package by name, without the compiler looking for it. */
const load = (name: string) => import(`npm:${name}`);

async function jaxJs([m, k, n, r]: LoraShape, inputs: Inputs): Promise<Runner> {
  const jax = await load("@jax-js/jax@0.1.25");
  if (!(await jax.init("webgpu")).includes("webgpu")) throw new Error("it found no WebGPU");
  jax.defaultDevice("webgpu");
  const { numpy: np } = jax;
  const array = (data: Float32Array, ...shape: number[]) => np.array(data, { shape });
  const [x, w, a, b, ct] = [
    array(inputs.x, m, k),
    array(inputs.w, k, n),
    array(inputs.a, k, r),
    array(inputs.b, r, n),
    array(inputs.ct, m, n),
  ];
  const lora = (x: any, w: any, a: any, b: any) => np.matmul(x.ref, w).add(np.matmul(np.matmul(x, a), b).mul(scale));
  const forward = jax.jit(lora);
  const both = jax.jit((x: any, w: any, a: any, b: any, ct: any) => {
    const [y, back] = jax.vjp((x: any, a: any, b: any) => lora(x, w.ref, a, b), [x, a, b]);
    const grads = back(ct);
    back.dispose();
    w.dispose();
    return [y, ...grads];
  });
  // All results are kept to the end: one that is disposed of before it was waited for is never computed.
  const repeat = (f: () => any[]) => async (calls: number) => {
    const results = Array.from({ length: calls }, f).flat();
    await jax.blockUntilReady(results);
    results.forEach((y) => y.dispose());
  };
  return {
    name: "jax-js",
    forward: repeat(() => [forward(x.ref, w.ref, a.ref, b.ref)]),
    both: repeat(() => both(x.ref, w.ref, a.ref, b.ref, ct.ref)),
  };
}

async function tensorFlowJs([m, k, n, r]: LoraShape, inputs: Inputs): Promise<Runner> {
  const tf = await load("@tensorflow/tfjs@4.22.0");
  await load("@tensorflow/tfjs-backend-webgpu@4.22.0");
  await tf.setBackend("webgpu");
  await tf.ready();
  const [x, w, a, b, ct] = [
    tf.tensor(inputs.x, [m, k]),
    tf.tensor(inputs.w, [k, n]),
    tf.tensor(inputs.a, [k, r]),
    tf.tensor(inputs.b, [r, n]),
    tf.tensor(inputs.ct, [m, n]),
  ];
  const lora = (x: any, a: any, b: any) => tf.add(tf.matMul(x, w), tf.mul(tf.matMul(tf.matMul(x, a), b), scale));
  const gradients = tf.grads(lora);
  const repeat = (f: () => any[]) => async (calls: number) => {
    for (let i = 1; i < calls; i++) tf.dispose(tf.tidy(f));
    const last = tf.tidy(f);
    const one = tf.slice(last.at(-1), [0, 0], [1, 1]);
    await one.data();
    tf.dispose([one, ...last]);
  };
  return {
    name: "TensorFlow.js",
    forward: repeat(() => [lora(x, a, b)]),
    both: repeat(() => gradients([x, a, b], ct)),
  };
}

/** ONNX Runtime Web runs graphs: forward only. */
async function onnxRuntime([m, k, n, r]: LoraShape, inputs: Inputs): Promise<Runner> {
  const ort = await load("onnxruntime-web@1.30.0/webgpu");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(loraGraph([m, k, n, r], inputs), {
    executionProviders: ["webgpu"],
    preferredOutputLocation: "gpu-buffer",
  });
  const x = new ort.Tensor("float32", inputs.x, [m, k]);
  return {
    name: "ONNX Runtime Web",
    forward: async (calls) => {
      for (let i = 1; i < calls; i++) (await session.run({ x })).y.dispose();
      const { y } = await session.run({ x });
      await y.getData(true);
    },
  };
}

/** y = x·W + 2·(x·A)·B as an ONNX model, in the protocol buffer wire format: fields by number, after onnx.proto. */
function loraGraph([m, k, n, r]: LoraShape, { w, a, b }: Inputs): Uint8Array {
  const varint = (value: number): number[] => value < 128 ? [value] : [value % 128 + 128, ...varint(value >>> 7)];
  const join = (parts: readonly Uint8Array[]) => {
    const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  };
  const number = (field: number, value: number) => Uint8Array.from([...varint(field << 3), ...varint(value)]);
  const bytes = (field: number, ...parts: Uint8Array[]) => {
    const body = join(parts);
    return join([Uint8Array.from([...varint(field << 3 | 2), ...varint(body.length)]), body]);
  };
  const text = (field: number, value: string) => bytes(field, new TextEncoder().encode(value));
  const weight = (name: string, dims: readonly number[], data: Float32Array) =>
    bytes(5, ...dims.map((d) => number(1, d)), number(2, 1), text(8, name), bytes(9, new Uint8Array(data.buffer)));
  const node = (op: string, to: string, ...from: string[]) =>
    bytes(1, ...from.map((name) => text(1, name)), text(2, to), text(4, op));
  const value = (field: number, name: string, dims: readonly number[]) =>
    bytes(field, text(1, name), bytes(2, bytes(1, number(1, 1), bytes(2, ...dims.map((d) => bytes(1, number(1, d)))))));
  const graph = bytes(
    7,
    node("MatMul", "wide", "x", "w"),
    node("MatMul", "u", "x", "a"),
    node("MatMul", "v", "u", "b"),
    node("Mul", "low", "v", "scale"),
    node("Add", "y", "wide", "low"),
    text(2, "lora"),
    weight("w", [k, n], w),
    weight("a", [k, r], a),
    weight("b", [r, n], b),
    weight("scale", [], Float32Array.of(scale)),
    value(11, "x", [m, k]),
    value(12, "y", [m, n]),
  );
  return join([number(1, 8), bytes(8, number(2, 13)), graph]);
}

const peers = [["jax-js", jaxJs], ["TensorFlow.js", tensorFlowJs], ["ONNX Runtime Web", onnxRuntime]] as const;

/** The runners that can be had. */
export async function openPeers(shape: LoraShape, inputs: Inputs): Promise<Runner[]> {
  const found: Runner[] = [];
  for (const [name, open] of peers) {
    try {
      found.push(await open(shape, inputs));
    } catch (error) {
      console.log(`${name} is left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  return found;
}
