import { assert, assertEquals } from "@std/assert";
import { formatSeconds } from "../../core/host/format.ts";
import { formatProgress, progressBar, type ProgressOptions } from "./progress.ts";

/** Runs a bar of 4 steps, one a second, 100 tokens each, with a line that stays after the second. */
function run(options: ProgressOptions): string[] {
  const written: string[] = [];
  let time = 0;
  const bar = progressBar(4, { write: (text) => written.push(text), now: () => time, columns: 80, ...options });
  for (let step = 1; step <= 4; step++) {
    time += 1000;
    bar.update({ step, loss: 1 / step, tokens: 100 * step });
    if (step === 2) bar.say("evaluated");
  }
  bar.end();
  return written;
}

Deno.test("a terminal's line is rewritten in place and stays within 79 columns", () => {
  const written = run({ terminal: true, color: false });
  assertEquals(written.length, 6);
  for (const text of [...written.slice(0, 2), ...written.slice(3, 5)]) {
    const line = text.slice(1, -3);
    assertEquals([text[0], text.slice(-3), line.length], ["\r", "\x1b[K", 79]);
  }
  assert(written[0].includes("step 1/4") && written[0].includes("- tokens/s") && written[0].includes("-:-- left"));
  assertEquals(written[2], "\revaluated\x1b[K\n");
  assert(written[3].includes("loss  0.3333      100 tokens/s   0:01 left"), written[3]);
  assertEquals(written[5], "\n");
});

Deno.test("colour is the bar's alone and only where asked for", () => {
  assert(run({ terminal: true, color: true })[1].includes("\x1b[32m█"));
  assert(!run({ terminal: true, color: false }).join("").includes("\x1b[3"));
});

Deno.test("without a terminal there is a plain line every so often, and one for the last step", () => {
  const written = run({ terminal: false, color: false, interval: 3000 });
  assertEquals(written.map((text) => text.slice(0, 9)), ["step 1/4 ", "evaluated", "step 3/4 ", "step 4/4 "]);
  assert(written.every((text) => text.endsWith("\n") && !["\r", "\x1b", "█", "·"].some((sign) => text.includes(sign))));
});

Deno.test("figures give way to the width one after another, and a line never is longer", () => {
  const speeds = { tokensPerSecond: 1_234_567, secondsLeft: 3723 };
  const state = { step: 1234, loss: 12.5, gradNorm: 0.0123, tokens: 0, bytes: 1.25e9 };
  const shown = [10, 40, 60, 72, 90, 120].map((width) => {
    const line = formatProgress(state, 10_000, speeds, width);
    assert(line.length <= width, line);
    return [/[█·]/.test(line), line.includes("grad 0.012"), line.includes("1.25 GB")];
  });
  assertEquals(shown[0], [false, false, false]);
  assertEquals(shown.map((parts) => parts.filter(Boolean).length), [0, 0, 0, 1, 2, 3]);
});

Deno.test("norms take five columns", () => {
  const shown = (gradNorm: number) =>
    /grad (.{5}) /.exec(
      formatProgress({ step: 1, loss: 1, tokens: 1, gradNorm }, 9, { tokensPerSecond: 1, secondsLeft: 1 }, 200),
    )?.[1];
  assertEquals([0, 0.012345, 1.23456, 123.456, 9999, 12345, 1e-9].map(shown), [
    "0.000",
    "0.012",
    "1.235",
    "123.5",
    " 9999",
    " 1e+4",
    " 1e-9",
  ]);
});

Deno.test("times", () => {
  assertEquals([0, 7.4, 59.6, 750, 3723].map(formatSeconds), ["0:00", "0:07", "1:00", "12:30", "1:02:03"]);
});
