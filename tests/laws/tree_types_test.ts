/** Types are tested by compiling: a line under @ts-expect-error must not, and `is` takes equal types only. */
import {
  add,
  causalLoss,
  checkpoint,
  customVjp,
  evaluate,
  explain,
  grad,
  type HostTensor,
  jit,
  loadAdapter,
  loadModel,
  lora,
  mul,
  type Operand,
  read,
  reduceSum,
  roundActivations,
  type Scalar,
  type ScalarTensor,
  sumOver,
  type Tensor,
  tensor,
  type TensorHome,
  train,
  type Trainable,
  type Value,
  valueAndGrad,
  vmap,
} from "../../mod.ts";
import { gpt2 } from "../../models/mod.ts";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
/** Compiles where `value` has the type A, no narrower and no wider. */
const is = <A>() => <B>(_value: B, ..._same: Equal<A, B> extends true ? [] : [never]) => {};

interface Params {
  readonly w: Value;
  readonly layers: readonly { readonly weight: Operand; readonly bias?: Value }[];
  readonly name: string;
}

/** What is declared, so that the functions below have what they are called with; they never run. */
interface Given {
  x: Tensor;
  v: Value;
  home: TensorHome;
  params: {
    readonly w: Tensor;
    readonly layers: readonly { readonly weight: Tensor; readonly bias?: Tensor }[];
    readonly name: string;
  };
}
const compiles = (_test: (given: Given) => unknown) => {};

Deno.test("a compiled function takes trees of tensors, values and numbers, and gives a tree of tensors", () => {
  compiles(({ x, v, params }) => {
    const f = jit((p: Params, x: Value) => ({ y: mul(p.w, x), list: [x, p.w], name: p.name }));
    const out = f(params, x);
    is<{ y: Tensor; list: Tensor[]; name: string }>()(out);
    f({ w: x, layers: [{ weight: 2, bias: v }], name: "numbers and values are data, too" }, 3);
    // @ts-expect-error there is no such result
    out.doesNotExist;
    // @ts-expect-error a string is no tensor
    f(params, "not a tensor");
    // @ts-expect-error the second argument is missing
    f(params);
    // @ts-expect-error there is no third
    f(params, x, x);
    // @ts-expect-error a tensor is missing in the tree
    f({ layers: [], name: "" }, x);
    // @ts-expect-error a part that is no array keeps its type
    f({ ...params, name: x }, x);
    const g = jit((x: Value, n: Value) => add(x, n));
    is<Tensor>()(g(x, 3));
    // @ts-expect-error the example of the documentation
    g("not a tensor", 3).doesNotExist;
    // @ts-expect-error a tree is no tensor
    g({ x }, 3);
    is<Tensor>()(jit((x: Value, key?: Value) => key ?? x)(x));
    is<Tensor[]>()(jit((...xs: Value[]) => xs)(x, 1, v));
    is<[ScalarTensor, Tensor]>()(jit((x: Value): [number, Value] => [1, x])(x));
  });
});

Deno.test("what is static keeps its own type", () => {
  compiles(({ x }) => {
    const power = jit((x: Value, times: number, how: "up" | "down") => {
      for (let i = 0; i < times; i++) x = how === "up" ? mul(x, x) : x;
      return { x, times };
    }, { static: [1, 2] });
    is<{ x: Tensor; times: ScalarTensor }>()(power(x, 3, "up"));
    // @ts-expect-error a loop can't count to a tensor
    power(x, x, "up");
    // @ts-expect-error the settings are typed as well
    power(x, 3, "sideways");
  });
});

Deno.test("gradients have the types of the arguments they are by", () => {
  compiles(({ x, params }) => {
    const loss = (p: Params, x: Value) => reduceSum(mul(p.w, x));
    const [value, slopes] = valueAndGrad(loss)(params, x);
    is<Scalar>()(value);
    is<Value>()(slopes.w);
    is<Value | undefined>()(slopes.layers[0].bias);
    is<string>()(slopes.name);
    is<Value>()(grad(loss, { argnums: 1 })(params, x));
    const [both, last] = grad(loss, { argnums: [0, 1] })(params, x);
    is<Value>()(both.w);
    is<Value>()(last);
    const withAux = valueAndGrad((x: Value) => [reduceSum(x), { twice: mul(x, 2) }], { hasAux: true });
    is<[[Scalar, { twice: Value }], Value]>()(withAux(x));
    is<Value>()(grad((x: Value) => grad((y: Value) => reduceSum(mul(y, x)))(x), {})(x));
    // @ts-expect-error the gradient has no such leaf
    slopes.weights;
    // @ts-expect-error what is not asked for is not there
    grad(loss, { argnums: [0] })(params, x)[1];
    // @ts-expect-error a loss is one value, unless hasAux says otherwise
    grad((x: Value) => ({ loss: x }));
    // @ts-expect-error with hasAux it comes with something
    valueAndGrad((x: Value) => x, { hasAux: true });
    // @ts-expect-error a string is no tensor
    grad(loss)(params, "x");
  });
});

Deno.test("the other transforms keep argument and result types", () => {
  compiles(({ x, home, params }) => {
    const f = (p: Params, x: Operand) => ({ sum: add(p.w, x), one: reduceSum(x) });
    for (const transformed of [checkpoint(f), roundActivations(f)]) {
      is<{ sum: Value; one: Scalar }>()(transformed(params, x));
      // @ts-expect-error a string is no tensor
      transformed(params, "x");
      // @ts-expect-error there is no such result
      transformed(params, x).two;
    }
    // A scalar has an axis once it is mapped.
    is<{ sum: Value; one: Value }>()(vmap(f, { inAxes: [null, 0] })(params, x));
    // @ts-expect-error a string is no tensor
    vmap(f)(params, "x");
    const custom = customVjp((x: Value) => x, { forward: (x) => [x, null], backward: (_, ct) => [ct] });
    is<Value>()(custom(x));
    // @ts-expect-error a string is no tensor
    custom("x");
    sumOver((rows, w) => reduceSum(mul(is<Value>()(rows) ?? rows, w.w)), x, params, { chunk: 1 });
    is<string>()(explain(f)(params, x));
    // @ts-expect-error a string is no tensor
    explain(f)(params, "x");
    is<ScalarTensor>()(tensor(home, 1));
    is<Tensor>()(tensor(home, [1]));
    is<Scalar>()(causalLoss(x, x));
    // @ts-expect-error the transforms compose, and so do their types
    jit(grad((x: Value) => reduceSum(x)))("x");
    is<Tensor>()(jit(grad((x: Value) => reduceSum(x)))(x));
    is<Tensor>()(jit(vmap(checkpoint((x: Value) => mul(x, x))))(x));
  });
});

Deno.test("read knows what it reads", () => {
  compiles(async ({ x, params }) => {
    const step = jit((p: Params, x: Value) => {
      const [loss, slopes] = valueAndGrad((p: Params) => reduceSum(mul(p.w, x)))(p);
      return { loss, slopes, kept: null };
    });
    const found = await read(step(params, x));
    is<number>()(found.loss);
    is<HostTensor | number>()(found.slopes.w);
    is<string>()(found.slopes.name);
    is<null>()(found.kept);
    // @ts-expect-error there is no such leaf
    found.gradients;
    is<(HostTensor | number)[]>()(await evaluate([mul(x, 2)]));
    is<number>()(await evaluate(reduceSum(x)));
    const adapters: Trainable = {};
    is<HostTensor | number | undefined>()((await read(adapters)).q_proj.A);
    is<unknown>()(await read(x as unknown));
  });
});

Deno.test("what is loaded, tuned and trained keeps its type", () => {
  compiles(async ({ home, x }) => {
    const model = await loadModel("a/model", { device: home });
    const tuned = lora(model, { r: 8, alpha: 16, targets: ["q_proj"] });
    const run = await train(tuned, { data: "rows.jsonl", steps: 100, lr: 1e-3 });
    is<typeof tuned>()(run.tuned);
    for await (const piece of run.tuned.chat("Hello", { maxNewTokens: 8, system: "Be brief." })) is<string>()(piece);
    for await (const piece of model.generate("Hello")) is<string>()(piece);
    is<typeof model.params>()(run.tuned.merge());
    is<Promise<void>>()(run.tuned.save("out", { name: "second" }));
    loadAdapter("out", model).chat("Hello");
    // @ts-expect-error there is no such method
    run.tuned.talk("Hello");
    // @ts-expect-error what is trained is decided already
    run.tuned.save("out", { trainable: run.trainable });
    const typed = await gpt2.load("a/model", { device: home });
    lora(typed, { r: 8, alpha: 16, targets: ["c_attn"] }).chat("Hello");
    // @ts-expect-error a target that the model does not have
    lora(typed, { r: 8, alpha: 16, targets: ["c_atn"] });
    const own = { params: { w: x }, sample: x, apply: (p: { w: Operand }, x: Operand) => mul(p.w, x) };
    const adapted = lora(own, { r: 1, alpha: 1, targets: "all-linear" });
    is<{ w: Operand }>()(adapted.merge());
    // @ts-expect-error a model of one's own has no tokenizer to talk with
    adapted.chat("Hello");
  });
});
