// deno run examples/own_model.ts
/** A model of your own, in thirty lines of the language: `lora` finds its weights in the graph, and knows nothing of it. */
import {
  add,
  attention,
  causalLoss,
  flatten,
  gather,
  geluTanh,
  iota,
  jit,
  lora,
  matmul,
  mul,
  newInput,
  openDevice,
  type Operand,
  read,
  reshape,
  rmsNorm,
  type ScalarTensor,
  sub,
  tensor,
  upload,
  type Value,
  valueAndGrad,
} from "@lowrank/lowrank";

using device = await openDevice("cpu");
const [digits, width, heads, length] = [10, 16, 2, 8];

// The model: a tree of weights, and a pure function of them that reads digits and foretells each next one.
let drawn = 0;
const noise = (...shape: number[]) => {
  const data = Float32Array.from({ length: shape[0] * shape[1] }, () => Math.sin(++drawn * drawn) / Math.sqrt(width));
  return upload(device, { dtype: "f32", shape, data });
};
const ones = () => tensor(device, Array(width).fill(1));
const params = {
  digit: { weight: noise(digits, width) },
  place: { weight: noise(length, width) },
  mix: { norm: ones(), query: noise(width, width), key: noise(width, width), value: noise(width, width) },
  inner: { norm: ones(), up: noise(width, 4 * width), down: noise(4 * width, width) },
  head: noise(width, digits),
};
function apply(p: typeof params, ids: Value): Value {
  const [b, t] = ids.shape;
  let x = add(gather(p.digit.weight, ids), gather(p.place.weight, iota([1, t], 1)));
  const seen = rmsNorm(x, p.mix.norm, 1e-6);
  const part = (weight: Operand) => reshape(matmul(seen, weight), [b, t, heads, width / heads]);
  const heard = attention(part(p.mix.query), part(p.mix.key), part(p.mix.value), { causal: true });
  x = add(x, reshape(heard, [b, t, width]));
  x = add(x, matmul(geluTanh(matmul(rmsNorm(x, p.inner.norm, 1e-6), p.inner.up)), p.inner.down));
  return matmul(x, p.head);
}
const model = { params, apply, sample: newInput({ shape: [1, length], dtype: "i32" }) };

/** Ten rows of digits: row i counts from i in steps, modulo 10. */
function counting(step: number) {
  const at = (i: number) => (Math.floor(i / length) + (i % length) * step) % digits;
  const data = Int32Array.from({ length: digits * length }, (_, i) => at(i));
  return upload(device, { dtype: "i32", shape: [digits, length], data });
}

/** Follows the gradient of what is trained, and of nothing else. */
async function teach<T, F>(f: (trained: T, fixed: F, ids: Value) => Value, trained: T, fixed: F, step: number) {
  const ids = counting(step);
  const turn = jit((trained: T, fixed: F, ids: Value) => {
    const loss = (trained: T) => causalLoss(f(trained, fixed, ids), ids);
    const [value, slopes] = valueAndGrad(loss)(trained);
    const { leaves, unflatten } = flatten<Value>(trained);
    const down = flatten<Value>(slopes).leaves;
    return { value, trained: unflatten(leaves.map((w, i) => sub(w, mul(0.1, down[i])))) };
  });
  let value!: ScalarTensor;
  for (let i = 0; i < 300; i++) {
    const next = turn(trained, fixed, ids);
    [value, trained] = [next.value, next.trained as T];
  }
  return { trained, loss: await read(value) };
}

const base = await teach((p: typeof params, _: null, ids) => apply(p, ids), params, null, 1);
console.log(`the base counts in ones: loss ${base.loss.toFixed(3)}`);

const tuned = lora({ ...model, params: base.trained }, { r: 2, alpha: 4, targets: ["query", "value", "up", "down"] });
console.log(tuned.matched.map(({ path, trainable }) => `${path} ${trainable}`).join(", "));
const adapter = await teach(tuned.apply, tuned.trainable, tuned.frozen, 3);
console.log(`the adapter counts in threes: loss ${adapter.loss.toFixed(3)}`);
