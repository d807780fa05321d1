/** Golden cases of objectives: losses, metrics and gradients with each set of options, and ten steps of AdamW; TRL's numbers. */
import { assert, assertEquals } from "@std/assert";
import { type HostTensor, upload } from "../../core/tensor.ts";
import { valueAndGrad } from "../../core/transforms/grad.ts";
import { div } from "../../core/ops/elementwise.ts";
import type { Example } from "../../data/examples.ts";
import { loadModel } from "../../models/load/load_model.ts";
import { sharedFunction, stepFunctions, uploadBatch } from "../../train/compiled_step.ts";
import { measuresOf, type Objective } from "../../train/objectives/objective.ts";
import { adamw } from "../../train/optimiser.ts";
import { referenceFunction } from "../../train/reference.ts";
import type { OpenRuntime } from "../runtimes.ts";
import { adapted, assertAllNear, byKey } from "./adapter_cases.ts";
import { assertNear, type GoldenCase } from "./golden_case.ts";
import { type Recipe, recipeOf } from "./objective_recipes.ts";

/** `obj-dpo`, `obj-orpo` and their like: what they are is seen by their files. */
export const isObjectiveCase = (golden: GoldenCase): boolean =>
  golden.has("trace.json") && golden.has("adapter") && golden.has("io.safetensors") &&
  Object.keys(golden.info.entries ?? {}).every((name) => gradsOf(golden, name) !== null) &&
  recipeOf(golden) !== null;

/** The file of an entry's gradients; of the only one, without its name. */
const gradsOf = (golden: GoldenCase, name: string): string | null =>
  [`grads_${name}.safetensors`, "grads.safetensors"].find((file) => golden.has(file)) ?? null;

/** Every entry, and the trace. */
export async function runObjectiveCase(golden: GoldenCase, runtime: OpenRuntime): Promise<void> {
  const recipe = recipeOf(golden)!;
  using model = await (recipe.load ?? loadModel)(golden.base!, { device: runtime.home });
  const { tuned, trainable, keyOf } = adapted(model as any, `${golden.folder}/adapter`);
  const entries = Object.entries<any>(golden.info.entries);
  assert(entries.length > 0);
  for (const [name, entry] of entries) {
    const { objective, batch } = await prepared(golden, recipe, entry.options, tuned, runtime);
    const share = sharerOf(tuned, objective, runtime);
    const columns = await share(trainable, upload_(runtime, batch));
    const count = objective.count(batch);
    const run = runtime.jit((params, frozen, columns) => {
      const made = (params: any) => {
        const { loss, ...rest } = objective.sums((x) => tuned.apply(params, frozen, x), columns);
        return [div(loss, count), rest] as const;
      };
      const [[loss, rest], grads] = valueAndGrad(made, { hasAux: true })(params);
      return { loss, rest, grads };
    });
    const { loss, rest, grads } = await runtime.read(run(trainable, tuned.frozen, columns));
    assertNear(`the loss of ${name}`, loss, entry.loss, golden.rtol.values);
    if (recipe.measured) {
      const found: Record<string, number> = {};
      for (const { name, of, less } of recipe.measured) {
        const sums = runtime.jit((params, frozen, columns) =>
          of.sums((x) => tuned.apply(params, frozen, x), columns).loss
        );
        const sum: number = await runtime.read(sums(trainable, tuned.frozen, columns));
        found[name] = sum / count - (less === null ? 0 : found[less]);
        assertNear(`${name} of the metrics`, found[name], entry.metrics[name], golden.rtol.values);
      }
    } else checkMetrics(name, objective, { ...rest, loss: loss * count, count }, entry.metrics, golden.rtol.values);
    const expected = golden.tensors(gradsOf(golden, name)!);
    const found = byKey(grads, keyOf);
    assertEquals([...found.keys()].sort(), [...expected.keys()].sort());
    assertAllNear(`${name}: the gradient of`, found, expected, golden.rtol.long);
  }
  await followTrace(golden, recipe, { tuned, trainable, keyOf }, runtime);
}

/** The same rows ten times. */
async function followTrace(golden: GoldenCase, recipe: Recipe, { tuned, trainable, keyOf }: any, runtime: OpenRuntime) {
  const { entry, hyperparameters: h, steps } = golden.json("trace.json");
  const { options } = golden.info.entries[entry];
  const { objective, batch } = await prepared(golden, recipe, options, tuned, runtime);
  const optimiser = adamw({ betas: h.betas, eps: h.eps, weightDecay: h.weight_decay });
  const share = sharerOf(tuned, objective, runtime);
  const step = runtime.jit(stepFunctions(tuned, { objective, optimiser, clip: h.clip }).whole, { donate: [0] });
  const key = upload(runtime.home, { shape: [2], dtype: "u32", data: new Uint32Array(2) });
  let state = runtime.jit((params) => ({ params, optimiser: optimiser.init(params) }))(trainable);
  const count = objective.count(batch);
  for (const [i, expected] of steps.entries()) {
    const columns = await share(state.params, upload_(runtime, batch));
    let report;
    ({ state, report } = step(state, h.lr, tuned.frozen, { columns, count, serial: i }, key));
    const { loss, gradNorm, measured } = await runtime.read(report);
    const { step: _, loss: wanted, grad_norm: norm, ...metrics } = expected;
    // A loss that training brings near to 0 is compared absolutely.
    assertNear(`the loss of step ${i + 1}`, loss, wanted, nearZero(wanted, golden.rtol.long));
    assertNear(`the norm of step ${i + 1}`, gradNorm, norm, nearZero(norm, golden.rtol.long));
    checkMetrics(`step ${i + 1}`, objective, { ...measured, loss: loss * count, count }, metrics, golden.rtol.long);
  }
  const end = byKey((await runtime.read(state)).params, keyOf);
  assertAllNear("at the end,", end, golden.tensors("adapter_final/adapter_model.safetensors"), golden.rtol.long);
}

/** A relative tolerance that allows 1e-6 of a number near 0. */
const nearZero = (wanted: number, rtol: number) => Math.max(rtol, 1e-6 / Math.abs(wanted || 1));

const upload_ = (runtime: OpenRuntime, batch: ReturnType<Objective["collate"]>) => uploadBatch(runtime.home, batch);

/** The objective with an entry's options, and its rows as one batch, with what is known of them before. */
async function prepared(golden: GoldenCase, recipe: Recipe, options: any, tuned: any, runtime: OpenRuntime) {
  const io = golden.tensors("io.safetensors");
  const objective = recipe.objective(options, golden);
  const rows = recipe.examples(io, options);
  const collate = (examples: readonly Example[]) =>
    objective.collate(examples, { rows: rows.length, seq: Math.max(...rows.map(objective.lengthOf)), padId: 0 });
  if (options.packed) {
    const sizes = rows.map(objective.lengthOf).reduce((a, b) => a + b);
    return { objective, batch: objective.pack!([rows], { rows: 1, seq: sizes, padId: 0 }) };
  }
  if (objective.reference === undefined) return { objective, batch: collate(rows) };
  const of = runtime.jit(referenceFunction(tuned, objective));
  const found: Record<string, HostTensor> = await runtime.read(
    of(tuned.model.params, uploadBatch(runtime.home, collate(rows))),
  );
  recipe.checkReference?.(io, found, golden.rtol.values);
  const own = (i: number) =>
    Object.fromEntries(
      Object.entries(found).map(([name, { data }]) => {
        const size = data.length / rows.length;
        return [name, Array.from(data.subarray(i * size, (i + 1) * size))];
      }),
    );
  return { objective, batch: collate(rows.map((row, i) => ({ ...row, reference: own(i) }))) };
}

/** What gives a batch the sums that its objective wants to know first. */
function sharerOf(tuned: any, objective: Objective, runtime: OpenRuntime) {
  if (objective.shared === undefined) return (_: unknown, columns: any) => columns;
  const run = runtime.jit(sharedFunction(tuned, objective));
  return (params: unknown, columns: any) => ({ ...columns, ...run(params, tuned.frozen, columns) });
}

/** Every metric of a case that has a measure of that name here; one without fails. */
function checkMetrics(
  what: string,
  objective: Objective,
  sums: Readonly<Record<string, number>>,
  expected: Readonly<Record<string, number>>,
  rtol: number,
): void {
  const found = measuresOf(objective, sums);
  for (const [name, value] of Object.entries(expected)) {
    assert(name in found, `${what} has the metric ${name}, and ${objective.name} measures ${Object.keys(found)}`);
    // Rewards are small differences of log-probabilities, which are as exact as these are large.
    const size = name.startsWith("rewards/") ? Math.max(Math.abs(value), 0.05) : Math.abs(value);
    assertNear(`${name} of ${what}`, found[name], value, nearZero(value, rtol * size / Math.abs(value || 1)));
  }
}
