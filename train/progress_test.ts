import { assert, assertEquals } from "@std/assert";
import { formatProgress, formatSeconds, progressBar, type ProgressOptions } from "./progress.ts";

/** Runs a bar of 4 steps, one a second, 100 tokens each. */
function run(options: ProgressOptions): string[] {
  const written: string[] = [];
  let time = 0;
  const bar = progressBar(4, { write: (text) => written.push(text), now: () => time, columns: 80, ...options });
  for (let step = 1; step <= 4; step++) {
    time += 1000;
    bar.update({ step, loss: 1 / step, tokens: 100 * step });
  }
  bar.end();
  return written;
}

Deno.test("a terminal's line is rewritten in place and stays within 79 columns", () => {
  const written = run({ terminal: true, color: false });
  assertEquals(written.length, 5);
  for (const text of written.slice(0, 4)) {
    const line = text.slice(1, -3);
    assertEquals([text[0], text.slice(-3), line.length], ["\r", "\x1b[K", 79]);
  }
  assert(written[0].includes("step 1/4") && written[0].includes("- tokens/s") && written[0].includes("-:-- left"));
  assert(written[2].includes("loss  0.3333      100 tokens/s   0:01 left"), written[2]);
  assertEquals(written[4], "\n");
});

Deno.test("colour is the bar's alone and only where asked for", () => {
  assert(run({ terminal: true, color: true })[1].includes("\x1b[32m█"));
  assert(!run({ terminal: true, color: false }).join("").includes("\x1b[3"));
});

Deno.test("without a terminal there is a plain line every so often, and one for the last step", () => {
  const written = run({ terminal: false, color: false, interval: 2000 });
  assertEquals(written.map((text) => text.slice(0, 8)), ["step 1/4", "step 3/4", "step 4/4"]);
  assert(written.every((text) => text.endsWith("\n") && !text.includes("\r") && !text.includes("\x1b")));
});

Deno.test("a narrow terminal gets no bar, and never more than its width", () => {
  const speeds = { tokensPerSecond: 1_234_567, secondsLeft: 3723 };
  for (const width of [10, 40, 60, 79, 120]) {
    const line = formatProgress({ step: 1234, loss: 12.5, tokens: 0 }, 10_000, speeds, width);
    assert(line.length <= width, line);
  }
});

Deno.test("times", () => {
  assertEquals([0, 7.4, 59.6, 750, 3723].map(formatSeconds), ["0:00", "0:07", "1:00", "12:30", "1:02:03"]);
});
