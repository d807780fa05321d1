/** Tokens in front of a model's own: in packed rows, block by block, token by token; and what is refused. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DataError, OptionError } from "../../core/errors.ts";
import { newInput, nodesOf } from "../../core/ir/graph.ts";
import { convert } from "../../core/ops/elementwise.ts";
import { slice } from "../../core/ops/structure.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { type Tensor, tensor } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { loadAdapter } from "../../formats/tuned_model.ts";
import { saveAdapter } from "../../formats/adapter.ts";
import { unmergedSteps } from "../../formats/unmerged.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import { evaluate } from "../../kernels/runtime/read.ts";
import { checkpointBlocks } from "../../models/families/checkpoint_blocks.ts";
import { generator } from "../../models/generate/generate.ts";
import { loadClassifier, loadModel } from "../../models/load/load_model.ts";
import { inFolder } from "../../tests/folder.ts";
import { lora, type Method, methods, together, tune } from "../mod.ts";

const cases = `${import.meta.dirname}/../../tests/goldens/cases`;
const three = { numVirtualTokens: 3 };
const fronts: readonly (readonly [string, Method<any, any>, any])[] = [
  ["prefix", methods.prefix, three],
  ["projected prefix", methods.prefix, { ...three, prefixProjection: true }],
  ["prompt", methods.prompt, three],
  ["p-tuning", methods.ptuning, three],
];
const tuneAny = (model: any, method: Method<any, any>, options: any) =>
  tune<any, any, any, any>(model, method, options);
const [first, second] = [[5, 17, 200, 3, 99], [42, 7, 1]];

/** Apart by no more than sums in another order make them. */
function assertClose(a: HostTensor, b: ArrayLike<number>): void {
  const scale = Math.max(...Array.from(b, Math.abs));
  assertEquals(a.data.length, b.length);
  Array.from(a.data).forEach((x, i) => assert(Math.abs(x - b[i]) <= 2 ** -16 * scale, `${x} and ${b[i]} at ${i}`));
}

for (const base of ["gpt2-base", "llama-base"]) {
  for (const [name, method, options] of fronts) {
    Deno.test(`${base}, ${name}: packed texts, blocks and steps are as each text alone`, async () => {
      using device = await openCpu();
      using model = await loadModel(`${cases}/${base}/model`, { device });
      const ids = (rows: number[][]) => tensor(device, rows, "i32");
      const tuned = tuneAny(model, method, options);
      const run = async (inputs: any, of = tuned) =>
        await evaluate(of.apply(tuned.trainable, tuned.frozen, inputs)) as HostTensor;
      const alone = [await run({ inputIds: ids([first]) }), await run({ inputIds: ids([second]) })];
      const documentStart = ids([[...first.map(() => 0), ...second.map(() => first.length)]]);
      const packed = await run({ inputIds: ids([[...first, ...second]]), documentStart });
      assertClose(packed, [...alone[0].data, ...alone[1].data]);

      const blocks = tuneAny(checkpointBlocks(model as any), method, options);
      assertClose(await run({ inputIds: ids([first]) }, blocks), Array.from(alone[0].data));

      // Prompts of unlike lengths, padded on the left.
      const steps = unmergedSteps<any>(model, tuned), params = { trainable: tuned.trainable, frozen: tuned.frozen };
      const made = await generator(steps)(params, [first, second], { maxNewTokens: 3 });
      for (const [row, prompt] of [first, second].entries()) {
        const own = await generator(steps)(params, [prompt], { maxNewTokens: 3 });
        assertEquals(made[row].ids, own[0].ids);
        const { shape: [, t, v], data } = await run({ inputIds: ids([prompt]) });
        const last = Array.from(data.subarray((t - 1) * v, t * v));
        assertEquals(made[row].ids[0], last.indexOf(Math.max(...last)));
      }
    });
  }
}

Deno.test("where a row has padding on either side, its tokens are as without", async () => {
  using device = await openCpu();
  using model = await loadModel(`${cases}/gpt2-base/model`, { device });
  const put = (rows: number[][]) => tensor(device, rows, "i32");
  for (const [, method, options] of fronts) {
    const tuned = tuneAny(model, method, options);
    const run = async (inputs: any) => await evaluate(tuned.apply(tuned.trainable, tuned.frozen, inputs)) as HostTensor;
    const alone = await run({ inputIds: put([second]) });
    const left = await run({ inputIds: put([[0, 0, ...second]]), attentionMask: put([[0, 0, 1, 1, 1]]) });
    const right = await run({ inputIds: put([[...second, 0, 0]]), attentionMask: put([[1, 1, 1, 0, 0]]) });
    const width = alone.shape[2];
    assertClose(alone, Array.from(left.data.subarray(2 * width)));
    assertClose(alone, Array.from(right.data.subarray(0, 3 * width)));
  }
});

Deno.test("in front of a text stands what is trained, once for all rows, and nothing of the model gets longer", async () => {
  using device = await openCpu();
  using model = await loadModel(`${cases}/llama-base/model`, { device });
  const inputs = { inputIds: newInput({ shape: [4, 16], dtype: "i32" }) };
  for (const [, method, options] of fronts) {
    const tuned = tuneAny(model, method, options);
    const { graph } = trace((t: any, f: any, x: any) => tuned.apply(t, f, x), [tuned.trainable, tuned.frozen, inputs]);
    const found = nodesOf(graph.outputs).filter(({ prim }) => prim.name === "attention");
    const rows = found.map(({ inputs: [q, k] }) => [q.shape[0], q.shape[1], k.shape[1]].join());
    assertEquals(
      new Set(rows),
      new Set(["4,16,16", "4,16,3", ...("prompt" === method.name || method.name === "ptuning" ? ["1,3,3"] : [])]),
    );
  }
});

Deno.test("a prompt starts as it is asked to", async () => {
  using device = await openCpu();
  using model = await loadModel("assets/letters-base", { device });
  const start = async (options: any) => {
    const { trainable } = tuneAny(model, methods.prompt, options);
    return await evaluate(trainable.prompt.prompt as Tensor) as HostTensor;
  };
  const ids = model.tokenizer().encode("Dear shop");
  const row = async (id: number) => await evaluate(gatherRow(model, id)) as HostTensor;
  const text = await start({
    numVirtualTokens: ids.length + 1,
    promptTuningInit: "TEXT",
    promptTuningInitText: "Dear shop",
  });
  assertEquals(text.data.subarray(0, text.shape[1]), (await row(ids[0])).data);
  assertEquals(text.data.subarray(-text.shape[1]), (await row(ids[0])).data);
  const sampled = await start({ numVirtualTokens: 2, promptTuningInit: "SAMPLE_VOCAB" });
  assert(sampled.data.some((x) => x !== 0));
  const zero = tuneAny(model, methods.prefix, { ...three, initWeights: "zero" });
  assert((await evaluate(zero.trainable.prompt.prompt as Tensor) as HostTensor).data.every((x) => x === 0));
  assertThrows(
    () => tuneAny(model, methods.prompt, { ...three, promptTuningInit: "ZERO" }),
    OptionError,
    "SAMPLE_VOCAB",
  );
  assertThrows(
    () => tuneAny(model, methods.prompt, { ...three, promptTuningInit: "TEXT" }),
    OptionError,
    "promptTuningInitText",
  );
  assertThrows(
    () => tuneAny(model, methods.ptuning, { ...three, encoderReparameterizationType: "LSTM" }),
    OptionError,
    '"MLP"',
  );
});

function gatherRow(model: any, id: number) {
  return slice(convert(model.params.wte.weight, "f32"), 0, id, id + 1);
}

Deno.test("what stands in front is refused where it can't: merged, twice, weighted, past the context, of other sizes", async () => {
  using device = await openCpu();
  using model = await loadModel(`${cases}/gpt2-base/model`, { device });
  const one = tuneAny(model, methods.prefix, three), other = tuneAny(model, methods.prompt, three);
  const inputs = { inputIds: tensor(device, [first], "i32") };
  const refuses = (f: () => unknown, ...words: string[]) => {
    for (const word of words) assertThrows(f, OptionError, word);
  };
  refuses(() => one.merge(one.trainable, one.frozen), "prefix", "can't be merged");
  const both = together<any, any, any, string>({ one, other });
  refuses(() => both.apply(both.trainable, both.frozen, inputs), "two adapters both put tokens in front");
  refuses(
    () => both.apply({ one: one.trainable }, both.frozen, inputs, { weights: { one: 0.5 } }),
    "give it no weight",
  );
  const beside = lora<any, any, any>(model, { r: 2, alpha: 2, targets: ["c_attn"], init: false });
  const mixed = together<any, any, any, string>({ one, beside });
  await evaluate(mixed.apply(mixed.trainable, mixed.frozen, inputs));
  const { contextLength } = model.sizes;
  const long = { inputIds: newInput({ shape: [1, contextLength - 2], dtype: "i32" }) };
  assertThrows(() => one.apply(one.trainable, one.frozen, long), DataError, "puts 3 in front");
  assertEquals(unmergedSteps(model, one).sizes.contextLength, contextLength - 3);
  refuses(() => tuneAny(model, methods.prefix, { ...three, numLayers: 7 }), "numLayers is 7, but it is 2");
  refuses(() => tuneAny(model, methods.prefix, { ...three, numTransformerSubmodules: 2 }), "numTransformerSubmodules");
  refuses(() => tuneAny(model, methods.prefix, { ...three, targets: ["c_attn"] }), "prefix has no option targets");
  refuses(() => tuneAny(model, methods.prefix, { numVirtualTokens: 0 }), "numVirtualTokens is 0");
  const { positions: _, ...silent } = model as any;
  refuses(() => tuneAny(silent, methods.prefix, three), "positions");
});

Deno.test("a classifier has tokens in front, keeps its head, and is saved and loaded", () =>
  inFolder(async (folder) => {
    using device = await openCpu();
    using model = await loadClassifier(`${cases}/bert-seqcls/model`, { device });
    const inputs = { inputIds: tensor(device, [[5, 6, 7]], "i32"), attentionMask: tensor(device, [[1, 1, 0]], "i32") };
    for (const [name, method, options] of fronts) {
      const tuned = tuneAny(model, method, { ...options, modulesToSave: ["classifier"] });
      const logits = await evaluate(tuned.apply(tuned.trainable, tuned.frozen, inputs)) as HostTensor;
      assertEquals(logits.shape, [1, model.labels.length]);
      await saveAdapter(`${folder}/${name}`, tuned, { trainable: tuned.trainable });
      const again = loadAdapter<any, any, any>(`${folder}/${name}`, model as any);
      assertClose(
        await evaluate(again.apply(again.trainable, again.frozen, inputs)) as HostTensor,
        Array.from(logits.data),
      );
    }
  }));
