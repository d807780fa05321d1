import { formatAval } from "../core/aval.ts";
import { OptionError } from "../core/errors.ts";
import { nearest } from "../core/host/nearest.ts";
import type { Leaf } from "../core/model.ts";
import type { AdapterEntry, Trainable } from "./options.ts";
import { checkMembers } from "../core/options.ts";

/**
 * Refuses what is no adapted model.
 *
 * @throws {OptionError}
 */
export function checkTuned(who: string, tuned: unknown): void {
  checkMembers(who, "an adapted model, as lora gives it", tuned, ["trainable", "frozen", "apply", "check", "plan"]);
}

/** @throws {OptionError} when an adapter is not one of this model and these options */
export function checkTrainable(given: Trainable, own: Trainable): void {
  checkMembers("an adapted model", "its adapter's values, such as tuned.trainable", given, []);
  for (const [path, parts] of Object.entries(own)) {
    if (!(path in given)) {
      throw new OptionError(`the adapter has nothing for "${path}", which this model was set up to adapt`);
    }
    const unknown = Object.keys(given[path]).find((part) => !(part in parts));
    if (unknown !== undefined) {
      throw new OptionError(`the adapter has ${unknown} for "${path}", which this model was not set up to train`);
    }
    for (const [part, want] of Object.entries(parts) as [keyof AdapterEntry, Leaf][]) {
      const leaf = given[path][part];
      const got = leaf === undefined ? "missing" : formatAval(leaf.aval);
      if (got !== formatAval(want.aval)) {
        throw new OptionError(`${part} of "${path}" is ${got}, but this model was set up for ${formatAval(want.aval)}`);
      }
    }
  }
  for (const path of Object.keys(given)) {
    if (!(path in own)) {
      const near = nearest(path, Object.keys(own));
      throw new OptionError(
        `the adapter has an entry for "${path}", which this model was not set up to adapt` +
          (near === null ? "" : `; the nearest that it adapts is "${near}"`),
      );
    }
  }
}
