/**
 * Programs that are not compiled: an option that there is not, and arguments that are something else altogether, are sentences,
 * at every function of the public surface that takes any. What is recorded in the surface is tested by being there.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { LowrankError, OptionError } from "../../core/errors.ts";
import { newInput } from "../../core/ir/graph.ts";
import { matmul } from "../../core/ops/contract.ts";
import type { Operand } from "../../core/tensor.ts";
import { openCpu } from "../../kernels/device/cpu/cpu.ts";
import * as main from "../../mod.ts";
import * as models from "../../models/mod.ts";
import * as testing from "../../testing/mod.ts";
import * as training from "../../train/mod.ts";
import { isOptions, parametersOf } from "./surface.ts";

const surface: Record<string, unknown> = { ...testing, ...training, ...models, ...main };
const recorded = Deno.readTextFileSync(new URL("../snapshots/public_surface.txt", import.meta.url));
const base = new URL("../../assets/letters-base", import.meta.url).pathname.replace(/^\/(?=[A-Za-z]:)/, "");

/** Waits for whatever a call gives: a promise, or the first item of a stream. */
async function outcome(call: () => unknown): Promise<void> {
  const given = await call();
  if (typeof (given as AsyncGenerator | null)?.next === "function") await (given as AsyncGenerator).next();
}

/** Functions whose last argument is data, written out in the signature. */
const data = ["isStarted", "rope", "unmergedSteps", "uploadBatch", "writeAdapter"];

/** Functions with options, by where these stand among the arguments. */
const takesOptions = new Map(
  recorded.split("\n").flatMap((line): [string, number][] => {
    const at = parametersOf(line.trim()).findIndex(isOptions);
    const name = /function\*? (\w+)/.exec(line)?.[1];
    return at < 0 || data.includes(name!) ? [] : [[name!, at]];
  }),
);

for (const [name, at] of takesOptions) {
  Deno.test(`${name} refuses an option that there is not, and what holds no options`, async () => {
    const f = surface[name] as (...args: unknown[]) => unknown;
    // A method says which options there are.
    const before = Array(at).fill(undefined).map((_, i) => name === "tune" && i === 1 ? main.methods.lora : undefined);
    await assertRejects(() => outcome(() => f(...before, { nope: 1 })), OptionError, "has no option nope");
    for (const wrong of [null, "cpu", 7, [1]]) {
      await assertRejects(() => outcome(() => f(...before, wrong)), OptionError, "takes its options as an object");
    }
  });
}

/** What a program writes and the library calls, or the library itself alone. */
const written = ["Tuned.step", "Method.sites", "Trainee.apply", "RowReader.encode"];

/** Methods of exported interfaces that take options. */
async function methodsWithOptions(): Promise<string[]> {
  const entries = ["mod.ts", "models/mod.ts", "train/mod.ts", "testing/mod.ts"];
  const { stdout } = await new Deno.Command("deno", {
    args: ["doc", "--json", "--import-map=offline.json", ...entries],
  })
    .output();
  const found = new Set<string>();
  const walk = (x: any, owner: string) => {
    if (x === null || typeof x !== "object") return;
    if (Array.isArray(x.methods)) {
      for (const { name, params } of x.methods) {
        if (params?.some((p: any) => (p.left ?? p).name === "options")) found.add(`${owner}.${name}`);
      }
    }
    for (const item of Object.values(x)) walk(item, typeof x.name === "string" ? x.name : owner);
  };
  walk(JSON.parse(new TextDecoder().decode(stdout)).nodes, "");
  return [...found];
}

Deno.test("methods of objects refuse an option that there is not", async () => {
  using device = await openCpu({ threads: 1, blas: false });
  using model = await main.loadModel(base, { device });
  const tuned = main.lora<any>(model, { r: 1, alpha: 1, targets: ["c_attn"] });
  const both = main.together({ one: tuned });
  const tokenizer = model.tokenizer();
  const sample = model.sample;
  const nope: any = { nope: 1 };
  const calls: Record<string, () => unknown> = {
    "TensorHome.jit": () => device.jit((x: Operand) => main.neg(x), nope),
    "Loader.load": () => models.gpt2.load(base, nope),
    "TextGenerator.generate": () => model.generate("a", nope),
    "TextGenerator.chat": () => tuned.chat("a", nope),
    "TunedModel.merge": () => tuned.merge(tuned.trainable, tuned.frozen, nope),
    "TunedModel.save": () => tuned.save("out/nowhere", nope),
    "Tuned.apply": () => tuned.apply(tuned.trainable, tuned.frozen, sample, nope),
    "Tuned.merge": () => both.merge({ one: tuned.trainable }, tuned.frozen, nope),
    "TunedTogether.apply": () => both.apply(both.trainable, both.frozen, sample, nope),
    "TunedTogether.merge": () => both.merge(both.trainable, both.frozen, nope),
    "Tokenizer.encode": () => tokenizer.encode("a", nope),
    "Tokenizer.encodeWithOffsets": () => tokenizer.encodeWithOffsets("a", nope),
    "Tokenizer.decode": () => tokenizer.decode([1], nope),
    "Tokenizer.applyChatTemplate": () => tokenizer.applyChatTemplate([], nope),
    "Tokenizer.writeChat": () => tokenizer.writeChat([], nope),
    "Generate": () => models.generator(model)(model.params, [[1]], nope),
    "TokenStream": () => models.tokenStream(model)(model.params, [[1]], nope),
  };
  assertEquals((await methodsWithOptions()).filter((name) => !(name in calls) && !written.includes(name)), []);
  for (const [name, call] of Object.entries(calls)) {
    await assertRejects(() => outcome(call), OptionError, "has no option nope", name);
  }
});

/** Its text is part of others' sentences, and it is called for every tensor of every call. */
const unchecked = ["formatAval"];

/** Commands' own: what they are given ends the process where it is wrong. */
const ends = ["reportErrors", "runCommandLine"];

Deno.test("arguments that are nothing of the kind are sentences", async () => {
  const wrong: string[] = [];
  for (const [name, f] of Object.entries(surface)) {
    if (typeof f !== "function" || /^[A-Z]/.test(name) || [...unchecked, ...ends].includes(name)) continue;
    for (const thing of [undefined, null, 7, "such", {}, []]) {
      try {
        await outcome(() => f(thing, thing, thing));
      } catch (error) {
        if (!(error instanceof LowrankError)) wrong.push(`${name} of ${Deno.inspect(thing)}: ${error}`);
      }
    }
  }
  assertEquals(wrong, []);
});

Deno.test("what is nearly right says what is right", async () => {
  using device = await openCpu({ threads: 1, blas: false });
  using model = await main.loadModel(base, { device });
  const plain: any = {
    params: { up: { weight: main.tensor(device, [[1, 2], [3, 4]]) } },
    sample: newInput({ shape: [1, 2], dtype: "f32" }),
    apply: (p: any, x: Operand) => matmul(x, p.up.weight),
  };
  const tuned: any = main.lora<any, any, any>(plain, { r: 1, alpha: 1, targets: ["up"] });
  const x = main.tensor(device, [[1, 2]]);
  const any = main as any;
  const calls: [string, () => unknown][] = [
    ["lora needs targets", () => any.lora(plain, {})],
    ["adapted already", () => any.lora(tuned, { r: 1, alpha: 1, targets: ["up"] })],
    ["at least one adapter", () => any.stackAdapters([])],
    ["trainable, weight", () => any.combine([{ tuned }], "cat")],
    ['not "out/merged"', () => tuned.merge("out/merged")],
    ["generate takes a text", () => (model as any).generate(undefined)],
    ["messages, or one as text", () => (model as any).chat(undefined)],
    ["name on the hub", () => any.loadModel(undefined, { device })],
    ["a list of positions as donate", () => any.jit(main.neg, { donate: "0" })],
    ["none at 5, which is donated", () => any.jit(main.neg, { donate: [5] })(x)],
    ["any would do for -1", () => main.reshape(main.full([0, 3], 1), [0, -1])],
    ["did you mean steps?", () => any.train(tuned, { data: [], stepz: 3 })],
  ];
  for (const [sentence, call] of calls) {
    const error = await assertRejects(() => outcome(call), LowrankError, sentence);
    assert(error.message.length < 300, error.message);
  }
});
