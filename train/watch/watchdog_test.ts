import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { OptionError } from "../../core/errors.ts";
import { rngFrom } from "../../data/rng.ts";
import { type Alarm, watchdog, type WatchdogOptions } from "./watchdog.ts";

/** The first alarm over some losses, with the step it came at (from 1). */
function firstAlarm(losses: readonly number[], options?: WatchdogOptions): { at: number; alarm: Alarm } | null {
  const guard = watchdog(options);
  for (const [i, loss] of losses.entries()) {
    const alarm = guard.check(loss);
    if (alarm) return { at: i + 1, alarm };
  }
  return null;
}

/** Losses that fall from 4 to about 1, with noise of the width given. */
function falling(count: number, noise: number): number[] {
  const rng = rngFrom(3);
  return Array.from({ length: count }, (_, i) => 1 + 3 * Math.exp(-i / 30) + noise * (rng.next() - 0.5));
}

Deno.test("a run that leaves for good is stopped after as many steps as were asked for", () => {
  const losses = [...falling(100, 0.3), 9, 9.5, 10, 11, 12, 13];
  for (const steps of [1, 3, 5]) {
    const { at, alarm } = firstAlarm(losses, { steps })!;
    assertEquals([at, alarm.losses], [100 + steps, losses.slice(100, 100 + steps)]);
    assert(alarm.mean > 1 && alarm.mean < 2 && alarm.limit > alarm.mean, `${alarm.mean}`);
  }
});

Deno.test("losses that are no numbers are far above", () => {
  assertEquals(firstAlarm([...falling(40, 0.1), NaN, Infinity, NaN], { steps: 3 })!.at, 43);
});

Deno.test("a spike, noise, a rise and the first steps are no alarm", () => {
  assertEquals(firstAlarm([...falling(100, 0.3), 9, 9, 9, 9, ...falling(100, 0.3).slice(50)]), null);
  assertEquals(firstAlarm(falling(400, 1.5)), null);
  assertEquals(firstAlarm(Array.from({ length: 300 }, (_, i) => 1 + i / 150)), null);
  assertEquals(firstAlarm([1, 50, 50, 50, 50, 50, 50, 50]), null);
});

Deno.test("losses within the margin of each other never alarm", () =>
  fc.assert(fc.property(
    fc.array(fc.double({ min: 2, max: 3, noNaN: true }), { maxLength: 200 }),
    (losses) => firstAlarm(losses, { margin: 1 }) === null,
  )));

Deno.test("taken up from its state at any step, it barks at the same one", () => {
  const losses = [...falling(60, 0.3), 9, NaN, 10, 11];
  const whole = firstAlarm(losses, { steps: 4 })!;
  for (const cut of [0, 5, 30, 61, 62, 63]) {
    const before = watchdog({ steps: 4 });
    losses.slice(0, cut).forEach((loss) => before.check(loss));
    const after = watchdog({ steps: 4, state: JSON.parse(JSON.stringify(before.state)) });
    const alarms = losses.slice(cut).map((loss) => after.check(loss));
    assertEquals(alarms.findIndex((alarm) => alarm !== null) + cut + 1, whole.at);
    assertEquals(alarms.at(-1), whole.alarm);
  }
});

Deno.test("what no watchdog can do is refused", () => {
  assertThrows(() => watchdog({ steps: 0 }), OptionError, "the watchdog's steps is 0: give a number above 0");
});
