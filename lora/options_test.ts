/** What options name, what they leave out, and what is refused with which sentence. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { OptionError } from "../core/errors.ts";
import type { Leaf } from "../core/model.ts";
import { matmul } from "../core/ops/contract.ts";
import { add } from "../core/ops/elementwise.ts";
import { gather } from "../core/ops/indexing.ts";
import { randomTensor, toyModel } from "../testing/toy_models.ts";
import { runOracle } from "../testing/oracle.ts";
import { lora } from "./lora.ts";

const linear = (rows: number, columns: number, seed: number) => ({
  weight: randomTensor([rows, columns], seed) as Leaf,
  bias: randomTensor([columns], seed + 50) as Leaf,
});
const layer = (i: number) => ({ q: linear(4, 4, i), v: linear(4, 4, i + 9) });
const model = {
  ...toyModel(
    { wte: { weight: randomTensor([7, 4], 30) as Leaf }, h: [layer(1), layer(2), layer(3)], head: linear(4, 5, 20) },
    (p, ids) =>
      p.h.flatMap((l) => [l.q, l.v]).concat(p.head).reduce(
        (x, { weight, bias }) => add(matmul(x, weight), bias),
        gather(p.wte.weight, ids),
      ),
    { shape: [2], dtype: "i32" },
  ),
  parts: { q: ["left", "right"] },
};
const make = (options: object) => lora<any, any, any>(model, { r: 1, alpha: 1, targets: ["q"], ...options } as any);
const paths = (options: object) => make(options).matched.map((m) => m.path);
const refusal = (options: object) => assertThrows(() => make(options), OptionError).message;

Deno.test("exclude takes away what targets named: names, ends, expressions", () => {
  assertEquals(paths({ exclude: ["h.1.q"] }), ["h.0.q", "h.2.q"]);
  assertEquals(paths({ targets: ["q", "v"], exclude: ["v"] }), ["h.0.q", "h.1.q", "h.2.q"]);
  assertEquals(paths({ targets: /.*\.[qv]/, exclude: /.*h\.[01]\..*/ }), ["h.2.q", "h.2.v"]);
  assertStringIncludes(refusal({ exclude: ["k"] }), 'exclude "k" matches no module of this model');
  assertEquals(refusal({ exclude: ["q"] }), "exclude leaves none of the 3 modules that targets names");
});

Deno.test("layers keeps the modules of some layers, found after any name or one that the pattern says", () => {
  assertEquals(paths({ layers: [0, 2] }), ["h.0.q", "h.2.q"]);
  assertEquals(paths({ layers: [1], layersPattern: "h" }), ["h.1.q"]);
  assertEquals(paths({ layers: [1], layersPattern: ["block", "h"] }), ["h.1.q"]);
  assertEquals(refusal({ layers: [1, 5] }), "layers has 5, but what targets names is in layers 0, 1, 2");
  assertStringIncludes(
    refusal({ layers: [1], layersPattern: "block" }),
    'no number is found in "model.h.0.q" by layersPattern',
  );
});

Deno.test("what is trained of the model itself is listed, in PEFT's order of options", () => {
  const saved = (options: object) => make(options).saved.map(({ path, part, by }) => `${path} ${part} ${by}`);
  assertEquals(saved({}), []);
  assertEquals(saved({ bias: "lora", layers: [0] }), ["h.0.q bias bias"]);
  assertEquals(saved({ bias: "all" }).length, 7);
  assertEquals(saved({ modulesToSave: ["head"] }), ["head weight modulesToSave", "head bias modulesToSave"]);
  assertEquals(saved({ modulesToSave: ["h.2"], layers: [0] }).length, 4);
  assertEquals(saved({ targets: "all-linear", modulesToSave: ["v"] }).length, 6);
  assertEquals(paths({ targets: "all-linear", modulesToSave: ["v", "head"] }), ["h.0.q", "h.1.q", "h.2.q"]);
  assertEquals(make({ trainableTokens: [3, 5] }).saved, [
    { path: "wte", part: "tokens", by: "trainableTokens", shape: [2, 4], tokens: [3, 5] },
  ]);
  assertStringIncludes(
    refusal({ modulesToSave: ["hed"] }),
    'modulesToSave "hed" matches no module of this model: did you',
  );
  assertStringIncludes(
    refusal({ modulesToSave: ["h.1"] }),
    '"h.1.q" is in targets and, by modulesToSave, trained in full',
  );
});

Deno.test("tokens: rows that are there, once, of an embedding that is known", () => {
  const { trainable } = make({ trainableTokens: { wte: [3, 5] } });
  const rows = runOracle((t: any, p: any) => [t.wte.tokens, p.wte.weight], trainable, model.params);
  assertEquals([...rows[0].data], [...rows[1].data.slice(12, 16), ...rows[1].data.slice(20, 24)]);
  assertStringIncludes(
    refusal({ trainableTokens: [7] }),
    'trainableTokens of "wte" has 7: it takes row numbers from 0 to 6',
  );
  assertStringIncludes(refusal({ trainableTokens: [1, 1] }), "each once");
  assertStringIncludes(refusal({ trainableTokens: [] }), "is empty");
  assertStringIncludes(refusal({ trainableTokens: { wpe: [1] } }), 'trainableTokens "wpe" matches no module');
  assertStringIncludes(
    refusal({ trainableTokens: [1], modulesToSave: ["wte"] }),
    '"wte" is trained in full by modulesToSave',
  );
  assertStringIncludes(refusal({ trainableTokens: [1], targets: ["wte"], dora: true }), "trainableTokens and dora");
});

Deno.test("parts of a projection are adapters of their own, with the sizes of the part", () => {
  const { matched, trainable } = make({ targets: ["h.1.q[right]", "v"], layers: [1] });
  assertEquals(matched.map((m) => m.path), ["h.1.q[right]", "h.1.v"]);
  assertEquals(matched[0].part, { of: "h.1.q", name: "right", start: 2, end: 4 });
  assertEquals([matched[0].trainable, trainable["h.1.q[right]"].B!.shape], [6, [2, 1]]);
  assertEquals(paths({ targets: ["q[left, right]"], layers: [0] }), ["h.0.q[left]", "h.0.q[right]"]);
  assertStringIncludes(refusal({ targets: ["q[middle]"] }), 'target "q[middle]" matches no module');
  assertStringIncludes(refusal({ targets: ["v[left]"] }), 'target "v[left]" matches no module');
  assertStringIncludes(refusal({ targets: ["q", "q[left]"] }), 'targets names "h.0.q" in whole and its part');
  assertStringIncludes(refusal({ targets: ["q[left]"], r: 3 }), 'r is 3, but "h.0.q[left]" is f32[4,4]: it takes');
});

Deno.test("first values: gaussian has the deviation 1/r, false draws both", () => {
  const values = (init: unknown) => {
    const { A, B } = make({ init, r: 4, layers: [0] }).trainable["h.0.q"];
    return runOracle((a: any, b: any) => [a, b], A, B).map((x: any) => [...x.data]) as number[][];
  };
  const deviation = (x: number[]) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0) / x.length);
  const [a, b] = values("gaussian");
  assert(deviation(a) > 0.15 && deviation(a) < 0.35 && b.every((x) => x === 0), `${deviation(a)} is about 1/4`);
  assert(values(false).every((x) => x.some((v) => v !== 0)));
  assertEquals(values(true), values(undefined));
});

Deno.test("an option of PEFT's is answered with what it is called here, or why it is not supported", () => {
  assertEquals(refusal({ use_dora: true }), "there is no option use_dora: it is called dora here");
  assertEquals(refusal({ loraDropout: 0.1 }), "there is no option loraDropout: it is called dropout here");
  assertEquals(refusal({ dropot: 0.1 }), "lora has no option dropot: did you mean dropout?");
  assertStringIncludes(refusal({ fan_in_fan_out: true }), "it is read from the model's own products");
  for (const init of ["loftq", "lora_ga", "mica"]) {
    assertStringIncludes(refusal({ init }), `init "${init}": `);
    assertStringIncludes(
      refusal({ init }),
      "is not computed here: create the initial values with PEFT and load the folder",
    );
  }
  assertStringIncludes(refusal({ init: "pissa_niter_4" }), "call await pissa(model, …)");
  assertEquals(refusal({ init: "zero" }), 'init is "zero"; supported: true, false, "gaussian", "orthogonal"');
  for (const init of ["eva", "olora", "corda"]) assertStringIncludes(refusal({ init }), "call await lora(model, {");
  assertEquals(refusal({ bias: "lora_only" }), 'bias is "lora_only"; supported: "none", "all", "lora"');
  assertEquals(refusal({ tie: "both" }), 'tie is "both"; supported: "use", "all"');
});

Deno.test("options that can't be together, or not on this module", () => {
  assertStringIncludes(refusal({ loraBias: true, dora: true }), "loraBias and dora exclude each other");
  assertStringIncludes(
    refusal({ targets: ["wte"], loraBias: true }),
    'loraBias on "wte": rows that are looked up have no bias',
  );
  const bare = toyModel({ w: { weight: randomTensor([4, 4], 1) as Leaf } }, (p, x) => matmul(x, p.w.weight));
  const tuned = lora(bare, { r: 1, alpha: 1, targets: ["w"], loraBias: true });
  const text = assertThrows(() => tuned.merge(tuned.trainable, tuned.frozen), OptionError).message;
  assertStringIncludes(
    text,
    '"w" can\'t be merged: it has no bias that the one of its low-rank branch could be added to',
  );
});

Deno.test("what merged weights alone don't determine is asked for by name", () => {
  const tuned = make({ dora: true, layers: [0] });
  const merged = tuned.merge(tuned.trainable, tuned.frozen);
  const text = assertThrows(() => tuned.unmerge(tuned.trainable, merged), OptionError).message;
  assertStringIncludes(text, '"h.0.q" can\'t be taken out of merged weights: merging wrote over its norms');
});
