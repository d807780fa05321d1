import { assertEquals, assertThrows } from "@std/assert";
import { DataError, FileError } from "../../core/errors.ts";
import { type MetricsEvent, openMetrics, parseMetrics, readMetrics, type RunFacts } from "./metrics.ts";

const facts: RunFacts = {
  started: "2026-01-02T03:04:05Z",
  steps: 4,
  from: 0,
  environment: { device: "cpu" },
  configuration: { lr: 1e-3 },
  adapter: [{ path: "h.0.attn.c_attn", shape: [16, 48], r: 4, alpha: 8, trainable: 256 }],
};
const run = (from: number): MetricsEvent => ({ event: "run", ...facts, from });
const step = (step: number, loss: number): MetricsEvent => ({
  event: "step",
  ...{ step, loss, gradNorm: 1, lr: 1e-3, tokens: 10 * step, seconds: step },
  ...{ tokensPerSecond: step > 1 ? 10 : null, secondsLeft: 4 - step, deviceBytes: 1000, processBytes: 2000 },
});
const evaluation = (step: number, loss: number): MetricsEvent => ({
  event: "evaluation",
  ...{ step, loss, perplexity: Math.exp(loss), count: 7, best: true, seconds: 0.5 },
});
const end: MetricsEvent = { event: "end", step: 4, reason: "done" };

Deno.test("what was written is read, one object per line", async () => {
  const path = await Deno.makeTempFile();
  try {
    const samples: MetricsEvent = { event: "samples", step: 2, samples: [{ prompt: "a\nb", text: "ü" }] };
    const events = [run(0), step(1, 3), step(2, 2), evaluation(2, 2.5), samples, step(3, 1), step(4, 1), end];
    {
      using log = openMetrics(path);
      events.forEach((event) => log.write(event));
    }
    assertEquals((await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line)), events);
    const history = readMetrics(path);
    assertEquals(history.run.adapter, facts.adapter);
    assertEquals(history.steps.map(({ loss }) => loss), [3, 2, 1, 1]);
    assertEquals([history.evaluations.length, history.samples, history.end], [1, [samples], end] as any);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a resumed run appends to the file, and replaces the steps that it does again", async () => {
  const path = await Deno.makeTempFile();
  try {
    for (const events of [[run(0), step(1, 3), step(2, 9), step(3, 9), end], [run(1), step(2, 2), step(3, 1)]]) {
      using log = openMetrics(path, { append: (events[0] as { from: number }).from > 0 });
      events.forEach((event) => log.write(event));
    }
    const history = readMetrics(path);
    assertEquals(history.steps.map(({ step, loss }) => [step, loss]), [[1, 3], [2, 2], [3, 1]]);
    assertEquals(history.end, undefined);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a line that was cut off at the end is left out, one that is broken elsewhere is named", () => {
  const lines = [run(0), step(1, 3), step(2, 2)].map((event) => JSON.stringify(event));
  assertEquals(parseMetrics(lines.join("\n"), "m").steps.length, 1);
  const refuse = (text: string, sentence: string) => assertThrows(() => parseMetrics(text, "m"), DataError, sentence);
  refuse(`${lines[0]}\n{"event"\n`, "m line 2 is not JSON");
  refuse(`${lines[0]}\n{"event":"lunch"}\n`, 'm line 2 is not a metric: its "event" must be one of run, step');
  refuse(`${lines[0]}\n{"event":"step","step":"one"}\n`, 'm line 2 has "one" as the "step" of a step');
  refuse(`${lines[0]}\n{"event":"step"}\n`, 'm line 2 has nothing as the "step" of a step');
  refuse("", 'no line of the event "run"');
});

Deno.test("files that can't be read or written are named", () => {
  assertThrows(() => readMetrics("out/no such folder/m"), FileError, "Cannot read metrics from out/no such folder/m");
  assertThrows(() => openMetrics("out/no such folder/m"), FileError, "Cannot write metrics to out/no such folder/m");
});

Deno.test("losses that are not finite are written as null and read", () => {
  const text = `${JSON.stringify(run(0))}\n${JSON.stringify(step(1, NaN))}\n`;
  assertEquals(parseMetrics(text, "m").steps[0].loss, null as unknown as number);
});

Deno.test("a value of another kind is named, wherever it stands", () => {
  const run = { event: "run", started: "", steps: 1, from: 0, environment: {}, configuration: {}, adapter: [] };
  const step = { event: "step", step: 1, loss: 1, gradNorm: 1, lr: 1, tokens: 1, seconds: 1 };
  const wrong: object[] = [
    { ...run, environment: { deno: null } },
    ...["tokens", "seconds", "lr", "deviceBytes", "processBytes"].map((key) => ({ ...step, [key]: null })),
    ...["tokensPerSecond", "secondsLeft"].map((key) => ({ ...step, [key]: "fast" })),
    { event: "evaluation", step: 1, loss: 1, count: null },
    { event: "evaluation", step: 1, loss: 1, count: 1, perplexity: [] },
    { event: "end", step: 1, reason: "done", message: {} },
  ];
  for (const line of wrong) {
    const text = [run, line].map((x) => `${JSON.stringify(x)}\n`).join("");
    assertThrows(() => parseMetrics(text, "m"), DataError, "m line 2 has");
  }
});
