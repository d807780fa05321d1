/** What every method must be, generated from the list in lora/methods/mod.ts: a new one there is tried by all of this. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { sizeOf } from "../../core/aval.ts";
import { OptionError } from "../../core/errors.ts";
import { newInput, nodesOf, rebuild, type Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { attention } from "../../core/nn/attention.ts";
import { reduceSum, reshape } from "../../core/ops/broadcast.ts";
import { iota, split } from "../../core/ops/structure.ts";
import { asValue } from "../../core/ops/constant.ts";
import { matmul } from "../../core/ops/contract.ts";
import { stopGradientPrim } from "../../core/ops/control.ts";
import { add, mul, tanh } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { type Tensor, upload } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { vmap } from "../../core/transforms/vmap.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { build } from "../../kernels/runtime/compile.ts";
import { roundoff } from "../../lora/bound.ts";
import {
  asKept,
  type Method,
  methods,
  stackAdapters,
  toLora,
  type Trainable,
  tune,
  type Tuned,
} from "../../lora/mod.ts";
import { besides } from "../../lora/methods/mod.ts";
import { tuneFromWeights } from "../../lora/start.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { checkGrads } from "../../testing/check_grads.ts";
import { evaluateOracle, fromOracle, type OracleTensor, runOracle, toHost, toOracle } from "../../testing/oracle.ts";
import { randomised, randomTensor, toyModel } from "../../testing/toy_models.ts";
import { runtimes } from "../runtimes.ts";
import { mergeRatio, unmergeRatio } from "./merge_property.ts";
import { makeSubject, methodVariant, optionsLike, trials } from "./merge_subjects.ts";

/** Modules of one model, as options name them. */
interface Names {
  readonly targets: readonly string[];
  /** What is trained in full, and whose rows are trained, where an option asks for such. */
  readonly whole: string;
  readonly table: string;
}

/** Every method with options: those beside another stand beside LoRA, with each option that they have. */
const cases: readonly { readonly name: string; readonly method: Method<any, any>; options(names: Names): any }[] = [
  ...Object.entries<Method<any, any>>(methods).flatMap(([name, method]) =>
    [undefined, ...method.samples ?? []].map((sample) => ({
      name: sample === undefined ? name : `${name} ${JSON.stringify(sample)}`,
      method,
      options: (names: Names) => ({
        ...optionsLike(method, names),
        ...(!method.whole && !method.branch && { targets: names.targets }),
        ...sample,
      }),
    }))
  ),
  ...besides.map((beside) => ({
    name: beside.name,
    method: methods.lora,
    options: (names: Names) => ({
      ...optionsLike(methods.lora, names),
      ...optionsLike(beside, names),
      targets: names.targets,
    }),
  })),
];

type Linear = { weight: Leaf; bias: Leaf };
const linear = (shape: readonly number[], outputs: number, seed: number): Linear => ({
  weight: randomTensor(shape, seed),
  bias: randomTensor([outputs], seed + 50),
});

/** Rows of a table through products in both layouts. */
const toy = toyModel(
  {
    wte: { weight: randomTensor([7, 4], 1) as Leaf },
    up: linear([4, 6], 6, 2),
    down: linear([4, 6], 4, 3),
    head: linear([4, 5], 5, 4),
  },
  (p, ids) => {
    const h = tanh(add(matmul(gather(p.wte.weight, ids), p.up.weight), p.up.bias));
    const y = tanh(add(matmul(h, p.down.weight, { transposeB: true }), p.down.bias));
    return add(matmul(y, p.head.weight), p.head.bias);
  },
  { shape: [3], dtype: "i32" },
) as Model<any, any, Value>;
/** Tokens that see those before them through one attention with two heads over one key's, at places that are looked up. */
const decoder = {
  ...toyModel(
    {
      wte: { weight: randomTensor([7, 4], 1) as Leaf },
      wpe: { weight: randomTensor([8, 4], 2) as Leaf },
      q: { weight: randomTensor([4, 4], 3) as Leaf },
      kv: { weight: randomTensor([4, 4], 4) as Leaf },
      o: { weight: randomTensor([4, 4], 6) as Leaf },
      head: linear([4, 5], 5, 5),
    },
    (p, x: any) => {
      const ids = asValue(x.inputIds), [b, t] = ids.shape;
      const places = x.positionIds === undefined ? iota([1, t], 1) : asValue(x.positionIds);
      const h = add(gather(p.wte.weight, ids), gather(p.wpe.weight, places));
      const q = reshape(matmul(h, p.q.weight), [b, t, 2, 2]);
      const [k, v] = split(reshape(matmul(h, p.kv.weight), [b, t, 2, 2]), 2, 2);
      const attended = attention(q, k, v, { causal: true, first: x.documentStart });
      const seen = matmul(reshape(attended, [b, t, 4]), p.o.weight);
      return add(matmul(tanh(add(h, seen)), p.head.weight), p.head.bias);
    },
  ),
  sample: { inputIds: newInput({ shape: [1, 3], dtype: "i32" }) },
  positions: (x: any) => x.positionIds ?? iota([1, x.inputIds.shape[1]], 1),
} as unknown as Model<any, any, Value>;

/** The model that a method is tried on, and what it reads: one of the model as a whole puts tokens in front of a decoder's. */
const subjectOf = (method: Method<any, any>) =>
  method.whole || method.branch ? { toy: decoder, ids: { inputIds: { ...ids, shape: [1, 3] } } } : { toy, ids };

const names: Names = { targets: ["up", "down"], whole: "head", table: "wte" };
const ids = { shape: [3], dtype: "i32" as const, data: Float64Array.of(1, 3, 1) };

/** The model tuned, by whatever its method needs to start. */
async function tuned(model: Model<any, any, any>, method: Method<any, any>, options: any) {
  return method.start === undefined
    ? tune(model, method, options)
    : await tuneFromWeights(model, { ...method, start: method.start }, options) as Tuned<any, any, any>;
}

/** Apart by no more than 2^10 roundings of float64, which is more than any sum here has. */
function assertSame(a: OracleTensor, b: OracleTensor): void {
  assertEquals(a.shape, b.shape);
  const scale = Math.max(...b.data.map(Math.abs));
  a.data.forEach((v, i) => assert(Math.abs(v - b.data[i]) <= 2 ** -43 * scale, `${v} and ${b.data[i]} at ${i}`));
}

/** A function in which what stands behind stopGradient keeps the values that it has for `args`. */
function held(f: (...args: any[]) => Value, args: readonly unknown[]): (...args: any[]) => Value {
  const { graph } = trace(f, args as any);
  const stopped = nodesOf(graph.outputs).filter(({ prim }) => prim === stopGradientPrim);
  const data = flatten<Tensor>(args).leaves.map((x) => fromOracle(x));
  const values = evaluateOracle({ inputs: graph.inputs, outputs: stopped.map(({ outs }) => outs[0]) }, data);
  const constants = new Map(stopped.map((node, i) => [node, asValue(toOracle(values[i]))]));
  return (...args) => {
    const given = flatten<Value>(args).leaves.map((x) => asValue(x));
    return rebuild(graph, given, (node) => constants.has(node) ? [constants.get(node)!] : null)[0];
  };
}

for (const { name, method, options } of cases) {
  const { toy, ids } = subjectOf(method);

  Deno.test(`${name}: its initial values leave the function as it is${method.startsElsewhere ? " not" : ""}`, async () => {
    const one = await tuned(toy, method, options(names));
    const run = (t: any, f: any, x: any) => one.apply(t, f, x);
    const [adapted, base] = [runOracle(run, one.trainable, one.frozen, ids), runOracle(toy.apply, toy.params, ids)];
    if (method.startsElsewhere) return void assertThrows(() => assertSame(adapted, base));
    if (method.start === undefined) return assertSame(adapted, base);
    // What is left of a weight was rounded once to f32: the weight, put together again, is as near as that.
    const merged = flatten<OracleTensor>(
      runOracle((t: any, f: any) => one.merge(t, f), one.trainable, one.frozen),
      isOracle,
    );
    const rest = flatten<Tensor>(one.frozen).leaves.map((x) => fromOracle(x));
    flatten<Tensor>(toy.params).leaves.forEach((leaf, i) =>
      fromOracle(leaf).data.forEach((w, j) => {
        const apart = Math.abs(merged.leaves[i].data[j] - w);
        assert(apart <= roundoff.f32 * Math.abs(rest[i].data[j]) + 2 ** -43, `${apart} at ${merged.paths[i]}`);
      })
    );
  });

  Deno.test(`${name}: what it trains changes the function, and merged it is the same function`, async () => {
    const one = await tuned(toy, method, options(names));
    const t = randomised(one.trainable, 5);
    const adapted = runOracle((t: any, f: any, x: any) => one.apply(t, f, x), t, one.frozen, ids);
    const base: OracleTensor = runOracle(toy.apply, toy.params, ids);
    assert(adapted.data.some((x: number, i: number) => Math.abs(x - base.data[i]) > 0.01), "it changes nothing");
    if (method.unmergeable) {
      assertThrows(() => one.merge(t, one.frozen), OptionError, "can't be merged");
      assertThrows(() => one.unmerge(t, one.frozen), OptionError, "can't be merged");
      return;
    }
    const merged = runOracle((t: any, f: any, x: any) => toy.apply(one.merge(t, f), x), t, one.frozen, ids);
    assertSame(merged, adapted);
  });

  Deno.test(`${name}: gradients are those of its own differences`, async () => {
    const one = await tuned(toy, method, options(names));
    const t = randomised(one.trainable, 6);
    const loss = (t: any) => {
      const y = one.apply(t, one.frozen, mapTree(ids, (x) => toOracle(x as any), isOracle));
      return reduceSum(mul(y, y));
    };
    checkGrads(held(loss, [t]), [t]);
    // What checkGrads compares is the graph with constants; the gradient of the function itself is the same.
    const [own, other] = [loss, held(loss, [t])].map((f) => runOracle((t: any) => valueAndGrad(f)(t)[1], t));
    flatten<OracleTensor>(own, isOracle).leaves.forEach((leaf, i) =>
      assertSame(leaf, flatten<OracleTensor>(other, isOracle).leaves[i])
    );
  });

  Deno.test(`${name}: several at once by vmap are each alone`, async () => {
    const one = await tuned(toy, method, options(names));
    const all = [7, 8, 9].map((seed) => randomised(one.trainable, seed));
    const run = (t: any, x: any) => one.apply(t, one.frozen, x);
    const together = runOracle(
      (ts: any[], x: any) => vmap((t: any) => run(t, x))(stackAdapters(ts)),
      all,
      ids,
    );
    all.forEach((t, i) => {
      const alone: OracleTensor = runOracle(run, t, ids);
      const size = sizeOf(alone.shape);
      assertSame({ ...alone, data: together.data.slice(i * size, (i + 1) * size) }, alone);
    });
  });

  if (method.start === undefined && !method.unmergeable) {
    Deno.test(`${name}: as LoRA of the weights' whole rank it is the same function`, async () => {
      const one = await tuned(toy, method, options(names));
      const t = randomised(one.trainable, 10);
      const { tuned: plain, error } = await toLora(one, t, { rank: 4 });
      assert(error < 16 * roundoff.f32, `${error}`);
      const run = (of: Tuned<any, any, any>, t: any): OracleTensor =>
        runOracle((t: any, f: any, x: any) => of.apply(t, f, x), t, of.frozen, ids);
      const [made, own] = [run(plain, plain.trainable), run(one, t)];
      // The pairs are stored as f32.
      const scale = 1024 * roundoff.f32 * Math.max(...own.data.map(Math.abs));
      made.data.forEach((v, i) => assert(Math.abs(v - own.data[i]) <= scale, `${v} and ${own.data[i]} at ${i}`));
    });
  }

  Deno.test(`${name}: saved, loaded and saved again it is the same bytes`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      using device = await runtimes[1].open();
      using model = await loadModel(`${import.meta.dirname}/../goldens/cases/gpt2-base/model`, { device: device.home });
      const own: Names = { targets: ["c_attn", "mlp.c_proj"], whole: "ln_f", table: "wte" };
      const one = await tuned(model as any, method, options(own));
      const put = (x: Tensor) => upload(device.home, toHost(fromOracle(x)));
      const trainable = mapTree(randomised(one.trainable, 3, 0.1), put) as Trainable;
      await saveAdapter(`${folder}/a`, one, { trainable });
      const again = loadAdapter<any, any, any>(`${folder}/a`, model as any);
      await saveAdapter(`${folder}/b`, again, { trainable: again.trainable });
      const weights = method.peftType ? "adapter_model.safetensors" : "adapter.safetensors"; // AdapterHub's
      for (const file of ["adapter_config.json", weights]) {
        assertEquals(Deno.readFileSync(`${folder}/b/${file}`), Deno.readFileSync(`${folder}/a/${file}`), file);
      }
      if (one.frozen === model.params as unknown) {
        assertEquals(again.matched, asKept(one, trainable).matched);
        const kept = device.jit((t: Trainable) => asKept(one, t).trainable)(trainable);
        assertEquals(await device.read(again.trainable), await device.read(kept));
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });

  if (method.unmergeable) continue; // what it trains is no change of a weight

  Deno.test(`${name}: no step of training holds a tensor of the weight's size`, () => {
    const place = (shape: number[], dtype: "f32" | "i32" = "f32") => newInput({ shape, dtype });
    const [rows, width, outputs] = [2, 192, 256];
    const wide: Model<any, any, Value> = {
      params: {
        wte: { weight: place([outputs, width]) },
        up: { weight: place([width, outputs]), bias: place([outputs]) },
        norm: { weight: place([outputs]) },
      },
      sample: place([rows], "i32"),
      apply: (p, ids) => mul(add(matmul(gather(p.wte.weight, ids), p.up.weight), p.up.bias), asValue(p.norm.weight)),
    };
    const one = tune(wide, method, options({ targets: ["up"], whole: "norm", table: "wte" }));
    const loss = (t: any, f: any, x: any) => {
      const y = one.apply(t, f, x);
      return reduceSum(mul(y, y));
    };
    const { program } = build(trace(valueAndGrad(loss), [one.trainable, one.frozen, wide.sample]).graph);
    const bytes = 4 * width * outputs;
    assert(program.arenaBytes < bytes, `${program.arenaBytes} bytes at once, and the weight has ${bytes}`);
  });
}

const isOracle = (x: unknown) => (x as OracleTensor | null)?.data instanceof Float64Array;

/** Another trial where a method can't take this one's rank. */
async function possible<T>(subject: Promise<T>): Promise<T> {
  const found = await subject.catch((error) => error);
  if (found instanceof Error && !(found instanceof OptionError)) throw found;
  fc.pre(!(found instanceof OptionError));
  return found as T;
}

for (const { name, open } of runtimes) {
  for (const [title, method] of Object.entries<Method<any, any>>(methods)) {
    if (method.unmergeable) continue;
    const variant = methodVariant(method);
    const numRuns = name.startsWith("webgpu") ? 1 : 8;

    Deno.test(`${name}, ${title}: adapted and merged differ by no more than rounding can make them`, async () => {
      using runtime = await open();
      await fc.assert(
        fc.asyncProperty(trials, async (trial) => {
          const { ratio } = await mergeRatio(runtime, await possible(makeSubject(trial, variant)));
          assert(ratio <= 1, `${ratio} times the bound`);
        }),
        { numRuns, seed: 5 },
      );
    });

    Deno.test(`${name}, ${title}: merged and unmerged again, a weight is what it was within rounding`, async () => {
      using runtime = await open();
      await fc.assert(
        fc.asyncProperty(trials.filter((t) => t.dtype === "f32"), async (trial) => {
          const ratio = await unmergeRatio(runtime, await possible(makeSubject(trial, variant)));
          assert(ratio <= 1, `${ratio} times the bound`);
        }),
        { numRuns, seed: 6 },
      );
    });
  }
}
