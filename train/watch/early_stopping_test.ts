import { assertEquals, assertThrows } from "@std/assert";
import { OptionError } from "../../core/errors.ts";
import { earlyStopping, type EarlyStoppingOptions, type StoppingState, type Verdict } from "./early_stopping.ts";

/** The verdicts over some losses; the state is saved and taken up before each. */
function judge(options: EarlyStoppingOptions, losses: number[]): Verdict[] {
  let state: StoppingState | undefined;
  return losses.map((loss) => {
    const stopping = earlyStopping({ ...options, state });
    const verdict = stopping.judge(loss);
    state = JSON.parse(JSON.stringify(stopping.state));
    return verdict;
  });
}

Deno.test("it waits, forgets the wait at a new best, and stops when patience is at its end", () => {
  assertEquals(judge({ patience: 2 }, [3, 2, 2.5, 1.9, 2, 2.1]), ["best", "best", "wait", "best", "wait", "stop"]);
  assertEquals(judge({ patience: 1 }, [3, 3]), ["best", "stop"]);
});

Deno.test("a loss that falls by less than minDelta, or is no number, is no new best", () => {
  assertEquals(judge({ patience: 3, minDelta: 0.1 }, [3, 2.95, 2.89]), ["best", "wait", "best"]);
  assertEquals(judge({ patience: 2 }, [NaN, 3, NaN, Infinity]), ["wait", "best", "wait", "stop"]);
});

Deno.test("numbers out of range are refused", () => {
  assertThrows(() => earlyStopping({ patience: 0 }), OptionError, "patience is 0: give at least 1 evaluation");
  assertThrows(() => earlyStopping({ patience: 1, minDelta: -1 }), OptionError, "minDelta is -1");
});
