import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { OptionError } from "../../core/errors.ts";
import { makeSchedule, type ScheduleName } from "./schedule.ts";

const at = (schedule: ScheduleName, step: number) => makeSchedule({ schedule, lr: 2, steps: 110, warmup: 10 })(step);

Deno.test("every schedule rises from 0 to the highest rate", () => {
  for (const schedule of ["constant", "linear", "cosine"] as const) {
    assertEquals([0, 5, 10].map((step) => at(schedule, step)), [0, 1, 2]);
  }
});

Deno.test("after the warm-up: constant stays, linear and cosine fall to 0", () => {
  assertEquals([60, 109].map((step) => at("constant", step)), [2, 2]);
  assertEquals([60, 85, 110].map((step) => at("linear", step)), [1, 0.5, 0]);
  assertAlmostEquals(at("cosine", 60), 1);
  assertAlmostEquals(at("cosine", 35), 1 + Math.SQRT1_2);
  assertAlmostEquals(at("cosine", 110), 0);
});

Deno.test("without a warm-up the first step has the highest rate", () => {
  assertEquals(makeSchedule({ schedule: "linear", lr: 3, steps: 4 })(0), 3);
});

Deno.test("a schedule refuses what it can't be", () => {
  const make = (options: object) => () => makeSchedule({ schedule: "linear", lr: 1, steps: 2, ...options });
  assertThrows(make({ lr: 0 }), OptionError, "the learning rate is 0");
  assertThrows(make({ warmup: -1 }), OptionError, "the warm-up has -1 steps");
  assertThrows(make({ schedule: "step" }), OptionError, "choose one of constant, linear, cosine");
});
