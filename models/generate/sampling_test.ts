import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OptionError } from "../../core/errors.ts";
import { broadcastTo } from "../../core/ops/broadcast.ts";
import { upload } from "../../core/tensor.ts";
import { randomKey } from "../../core/random.ts";
import { type OpenRuntime, oracleRuntime, runtimes } from "../../tests/runtimes.ts";
import { tokenStream } from "./generate.ts";
import { loadModel } from "../load/load_model.ts";
import { limit, noToken, sampleToken, samplingNumbers, type SamplingOptions } from "./sampling.ts";

const floats = (runtime: OpenRuntime, shape: number[], data: number[]) =>
  upload(runtime.home, { shape, dtype: "f32", data: Float32Array.from(data) });

/** Which entries may be drawn, by sorting. */
function allowedBySorting(logits: readonly number[], { topK, topP, minP }: SamplingOptions): boolean[] {
  let kept = logits.map(() => true);
  const most = Math.max(...logits);
  if (topK !== undefined) {
    const least = [...logits].sort((a, b) => b - a)[Math.min(topK, logits.length) - 1];
    kept = logits.map((x) => x >= least);
  }
  if (topP !== undefined) {
    const weights = logits.map((x, i) => kept[i] ? Math.exp(x - most) : 0);
    const total = weights.reduce((a, b) => a + b);
    kept = logits.map((x, i) => {
      const above = weights.reduce((sum, w, j) => logits[j] > x ? sum + w : sum, 0);
      return kept[i] && above < topP * total;
    });
  }
  return logits.map((x, i) => kept[i] && (minP === undefined || x >= most + Math.log(minP)));
}

/** Logits of one row, often equal to each other; steps of 1/4 keep sums away from the limits. */
const row = fc.array(fc.integer({ min: -40, max: 40 }).map((x) => x / 4), { minLength: 24, maxLength: 24 });
const limits = fc.record({
  topK: fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }),
  topP: fc.option(fc.constantFrom(0.101, 0.503, 0.907, 0.991), { nil: undefined }),
  minP: fc.option(fc.constantFrom(0.013, 0.27), { nil: undefined }),
});

for (const { name, open } of runtimes) {
  Deno.test(`top-k, top-p and min-p leave what sorting leaves, on ${name}`, async () => {
    using runtime = await open();
    const run = runtime.jit((logits, numbers) => limit(logits, numbers));
    await fc.assert(
      fc.asyncProperty(fc.tuple(row, row), limits, async (rows, options) => {
        const numbers = samplingNumbers({ ...options, temperature: 1 });
        const { temperature: _, ...rest } = numbers;
        const { data } = await runtime.read(run(floats(runtime, [2, 24], rows.flat()), rest));
        const allowed = rows.flatMap((r) => allowedBySorting(r, options));
        assertEquals([...data].map((x) => x > -1e38), allowed);
      }),
      { numRuns: 25, seed: 7 },
    );
  });

  Deno.test(`draws are as frequent as the softmax says, on ${name}`, async () => {
    using runtime = await open();
    const logits = [0, 1, -1, 2.5, 0.5, -3, 1.5, 2];
    const draws = 4096, temperature = 0.7;
    const run = runtime.jit((x, numbers, key) => sampleToken(broadcastTo(x, [draws, 8]), numbers, key, null));
    const drawn = run(floats(runtime, [1, 8], logits), { temperature }, upload(runtime.home, randomKey(5)));
    const counts = logits.map(() => 0);
    for (const id of (await runtime.read(drawn)).data) counts[id]++;
    const weights = logits.map((x) => Math.exp(x / temperature));
    const total = weights.reduce((a, b) => a + b);
    const chi2 = counts.reduce((sum, n, i) => {
      const expected = draws * weights[i] / total;
      return sum + (n - expected) ** 2 / expected;
    }, 0);
    // The 0.999 quantile of chi-square with 7 degrees of freedom; the seed is fixed.
    assert(chi2 < 24.32, `${chi2}: ${counts}`);
  });
}

Deno.test("tokens that were seen are penalised, whichever sign their logit has", async () => {
  const runtime = oracleRuntime;
  const run = runtime.jit((x, seen, numbers) => sampleToken(x, numbers, null, seen));
  const best = async (logits: number[], seen: number[], repetitionPenalty: number) =>
    (await runtime.read(run(floats(runtime, [1, 3], logits), floats(runtime, [1, 3], seen), { repetitionPenalty })))
      .data[0];
  assertEquals(await best([2, 1.5, 0], [1, 0, 0], 1.2), 0);
  assertEquals(await best([2, 1.5, 0], [3, 0, 0], 1.5), 1);
  assertEquals(await best([-1, -1.5, -9], [1, 0, 0], 2), 1);
});

Deno.test("options without an effect are no part of a program, others are checked", () => {
  assertEquals(samplingNumbers({ temperature: 0, topK: 5, topP: 0.5, minP: 0.1, repetitionPenalty: 1, seed: 9 }), {});
  assertEquals(samplingNumbers({ temperature: 0.5, topP: 1, minP: 0 }), { temperature: 0.5 });
  for (
    const wrong of [{ temperature: -1 }, { topK: 0 }, { topK: 1.5 }, { topP: 0 }, { topP: 2 }, { minP: -1 }, {
      repetitionPenalty: 0,
    }, { temperature: NaN }]
  ) assertThrows(() => samplingNumbers(wrong), OptionError, Object.keys(wrong)[0]);
});

Deno.test("one seed gives one text on every device, in groups of any size; another seed another", async () => {
  const options = { maxNewTokens: 12, temperature: 0.9, topK: 40, topP: 0.95, repetitionPenalty: 1.1 };
  const prompts = [[5, 17, 90], [44]];
  const texts: unknown[] = [];
  for (const { open } of runtimes) {
    using runtime = await open();
    using model = await loadModel(`${import.meta.dirname}/../../tests/goldens/cases/gpt2-base/model`, {
      device: runtime.home,
    });
    const stream = tokenStream(model);
    const text = async (extra: object) => {
      const ids: (number | null)[][] = [[], []];
      for await (const { row, id } of stream(model.params, prompts, { ...options, ...extra })) ids[row].push(id);
      return ids;
    };
    texts.push(await text({ seed: 3, readEvery: 5 }));
    assertEquals(await text({ seed: 3, readEvery: 1 }), texts.at(-1));
    assertNotEquals(await text({ seed: 4 }), texts.at(-1));
  }
  for (const text of texts) assertEquals(text, texts[0]);
});

Deno.test("a reader may leave a stream at any token", async () => {
  const runtime = oracleRuntime;
  const model = await loadModel(`${import.meta.dirname}/../../tests/goldens/cases/gpt2-base/model`, {
    device: runtime.home,
  });
  const stream = tokenStream(model);
  for await (const { id } of stream(model.params, [[1, 2]], { maxNewTokens: 5 })) {
    assert(id !== null);
    break;
  }
});

const extremes = fc.record({
  temperature: fc.constantFrom(1e-45, 1e-38, 1e-30, 1e-6, 1, 1e30, 3e38),
  seed: fc.constantFrom(0, 1, 2 ** 32, 2 ** 53 - 1),
});

for (const { name, open } of runtimes) {
  Deno.test(`the least temperatures take the greatest, the highest any, on ${name}`, async () => {
    using runtime = await open();
    const logits = [[3e38, -3e38, 1, 0, 2.9e38, -1, 5, 7], [1, 2, 4, 3, -9, 0, 0.5, 3.5]];
    const run = runtime.jit((logits, numbers, key) => sampleToken(logits, numbers, key, null));
    await fc.assert(
      fc.asyncProperty(extremes, async ({ temperature, seed }) => {
        const numbers = samplingNumbers({ temperature });
        const key = "temperature" in numbers ? upload(runtime.home, randomKey(seed)) : null;
        const drawn = await runtime.read(
          key === null
            ? runtime.jit((logits) => sampleToken(logits, {}, null, null))(floats(runtime, [2, 8], logits.flat()))
            : run(floats(runtime, [2, 8], logits.flat()), numbers, key),
        );
        if (temperature <= 1e-6) assertEquals([...drawn.data], [0, 2]);
        for (const token of drawn.data) assert(token >= 0 && token < 8, `token ${token} at ${temperature}`);
      }),
      { numRuns: 20, seed: 3 },
    );
  });

  Deno.test(`a row whose logits are not all finite has no token, on ${name}`, async () => {
    using runtime = await open();
    const good = [0, 1, 2, 3];
    const rows = [good, [0, NaN, 1, 2], [Infinity, 0, 0, 0], [0, 0, 0, -Infinity], good];
    const wanted = [3, noToken, noToken, noToken, 3];
    const logits = floats(runtime, [5, 4], rows.flat());
    const greedy = runtime.jit((logits) => sampleToken(logits, {}, null, null));
    assertEquals([...(await runtime.read(greedy(logits))).data], wanted);
    const drawn = runtime.jit((logits, numbers, key) => sampleToken(logits, numbers, key, null));
    const numbers = samplingNumbers({ temperature: 1e-6, topP: 0.9, topK: 3 });
    const key = upload(runtime.home, randomKey(5));
    assertEquals([...(await runtime.read(drawn(logits, numbers, key))).data], wanted);
  });
}
