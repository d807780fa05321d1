/**
 * Other tools' LoRA linear on the same adapter. They are no part of this project: their packages are taken from the folder
 * of node modules named by PEERS, or by name from npm where it is 1, and a tool that can't be had is left out with a line.
 */

/** M, K, N and r. */
export type LoraShape = readonly [m: number, k: number, n: number, r: number];

/** One tool's ways to do the work; each call runs several times and waits once. */
export interface Runner {
  readonly name: string;
  readonly forward: () => Promise<void>;
  readonly both?: () => Promise<void>;
}

/** What everybody is given: x [m,k], w [k,n], a [k,r], b [r,n] and the cotangent of y [m,n]. */
export type Inputs = Readonly<Record<"x" | "w" | "a" | "b" | "ct", Float32Array>>;

const scale = 2;

/** A package by name, without the compiler looking for it. */
const load = (name: string) => import(`npm:${name}`);

async function jaxJs([m, k, n, r]: LoraShape, inputs: Inputs, calls: number): Promise<Runner> {
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
  const repeat = (f: () => any[]) => async () => {
    for (let i = 1; i < calls; i++) f().forEach((y) => y.dispose());
    const last = f();
    await jax.blockUntilReady(last);
    last.forEach((y) => y.dispose());
  };
  return {
    name: "jax-js",
    forward: repeat(() => [forward(x.ref, w.ref, a.ref, b.ref)]),
    both: repeat(() => both(x.ref, w.ref, a.ref, b.ref, ct.ref)),
  };
}

async function tensorFlowJs([m, k, n, r]: LoraShape, inputs: Inputs, calls: number): Promise<Runner> {
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
  const repeat = (f: () => any[]) => async () => {
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

/** The runners that can be had; ONNX Runtime Web has its own file, as it takes a graph. */
export async function openPeers(shape: LoraShape, inputs: Inputs, calls: number): Promise<Runner[]> {
  const found: Runner[] = [];
  for (const [name, open] of [["jax-js", jaxJs], ["TensorFlow.js", tensorFlowJs]] as const) {
    try {
      found.push(await open(shape, inputs, calls));
    } catch (error) {
      console.log(`${name} is left out: ${error instanceof Error ? error.message : error}`);
    }
  }
  return found;
}
