import { LowrankError } from "../errors.ts";
import { bind, type Graph, type Primitive, rebuild, type Value } from "../ir/graph.ts";
import { reduceSum } from "../ops/broadcast.ts";
import { asValue } from "../ops/constant.ts";
import { leafValues } from "../trace.ts";
import { flatten } from "../tree.ts";
import type { Arguments, Values } from "../tree_types.ts";
import { closeOver, inferBody } from "./body.ts";
import { vmap } from "./vmap.ts";

type Flat = (values: readonly Value[]) => Value[];

/** The user's rule over flat lists: `forward` returns the outputs, then what is saved for `backward`. */
interface CustomParams {
  readonly body: Graph;
  /** The inputs that are arguments; those after them are captures, which have no gradient. */
  readonly count: number;
  readonly forward: Flat;
  readonly backward: (saved: readonly Value[], cts: readonly (Value | null)[]) => (Value | null)[];
}

export const customVjpPrim: Primitive<CustomParams> = {
  name: "customVjp",
  define: (inputs, { body }) => rebuild(body, inputs),
  infer: (avals, { body }) => inferBody("customVjp", body, avals),
  vjp: "expand",
  linearize: (inputs, { body, count, forward, backward }, needs) => {
    if (needs.slice(count).includes(true)) {
      throw new LowrankError(
        "a function with a customVjp mentions a value from outside that a gradient is asked for: pass it as an argument",
      );
    }
    const all = forward(inputs.slice(0, count));
    const [outs, saved] = [all.slice(0, body.outputs.length), all.slice(body.outputs.length)];
    return {
      outs,
      pullback: (cts) => [...backward(saved, cts), ...inputs.slice(count).map(() => null)],
    };
  },
  batch: ({ inputs, batched, params: { body, count, forward, backward } }) => {
    const [args, axes] = [inputs.slice(0, count), batched.slice(0, count).map((b) => b ? 0 : null)];
    const captured = batched.map((b) => b ? 0 : null);
    const run = vmap((...xs: Value[]) => rebuild(body, xs), { inAxes: captured });
    const f: Flat = (xs) => run(...xs, ...inputs.slice(count)) as Value[];
    return [...bindCustom(f, args, {
      forward: (xs) => vmap((...x: Value[]) => forward(x), { inAxes: axes })(...xs),
      backward: (saved, cts) => {
        const grads = vmap((s: Value[], c: (Value | null)[]) => backward(s, c))([...saved], [...cts]);
        // A shared argument was used once by each of the batch.
        return grads.map((g, i) => g === null || batched[i] ? g : reduceSum(g, 0));
      },
    })];
  },
  lowering: { kind: "expand" },
};

function bindCustom(f: Flat, args: readonly Value[], rule: Pick<CustomParams, "forward" | "backward">) {
  const { graph, captures } = closeOver(f, args.map((v) => v.aval));
  return bind(customVjpPrim, [...args, ...captures], { body: graph, count: args.length, ...rule });
}

/** A derivative written by hand: what to compute and save going forward, and the gradients going back. */
export interface CustomRule<A extends unknown[], O, S> {
  /** The outputs of the function, and a tree of what `backward` needs. */
  forward(...args: A): readonly [O, S];
  /** From what was saved and the outputs' cotangents (the same tree, null where none was asked): one tree per argument. */
  backward(saved: S, ct: O): { readonly [K in keyof A]: unknown };
}

/**
 * `f` with a derivative of your own. A gradient of null says that an argument has none. Under vmap the rule is mapped too.
 *
 * @throws {LowrankError} when a gradient is asked for through a value that `f` mentions from outside
 *
 * @example
 * ```ts
 * import { clamp, customVjp, grad, jit, mul, openDevice, read, tensor, type Value } from "@lowrank/lowrank";
 *
 * using device = await openDevice("cpu");
 * const clipGradient = customVjp((x: Value) => x, {
 *   forward: (x) => [x, null],
 *   backward: (_, ct) => [clamp(ct, -1, 1)],
 * });
 * const slope = jit(grad((x: Value) => mul(clipGradient(x), 5)));
 * console.log(await read(slope(tensor(device, 2)))); // 1, not 5
 * ```
 */
export function customVjp<A extends unknown[], O, S>(
  f: (...args: A) => O,
  rule: CustomRule<A, O, S>,
): (...args: Arguments<A>) => Values<O> {
  return (...args) => {
    const flat = flatten(args);
    let out!: ReturnType<typeof flatten<Value>>;
    let saved!: ReturnType<typeof flatten<Value>>;
    const plain: Flat = (xs) => {
      out = flatten<Value>(f(...flat.unflatten(xs) as A));
      return out.leaves.map((v) => asValue(v));
    };
    const outputs = bindCustom(plain, leafValues(args), {
      forward: (xs) => {
        const [y, s] = rule.forward(...flat.unflatten(xs) as A);
        saved = flatten<Value>(s);
        return [...flatten<Value>(y).leaves, ...saved.leaves].map((v) => asValue(v));
      },
      backward: (values, cts) => {
        const grads = rule.backward(saved.unflatten(values) as S, out.unflatten(cts) as O);
        return args.flatMap((arg, i) => {
          const want = flatten(arg).leaves.length;
          const got = grads[i] === null ? Array(want).fill(null) : flatten<Value>(grads[i]).leaves;
          if (got.length !== want) {
            throw new LowrankError(
              `backward of ${
                f.name || "a customVjp"
              } returned ${got.length} gradients for argument ${i}, which has ${want} leaves`,
            );
          }
          return got.map((v) => v === null ? null : asValue(v));
        });
      },
    });
    return out.unflatten(outputs) as Values<O>;
  };
}
