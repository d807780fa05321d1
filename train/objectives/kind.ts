/** An objective as it is asked for by its name: its settings, and the objective that they make. */
import { type Given, type OptionTable, type Resolved, resolveOptions } from "../options/option_table.ts";
import type { Objective } from "./objective.ts";

/** What `--objective NAME` finds. */
export interface ObjectiveKind {
  readonly name: string;
  /** One line about it, without a full stop. */
  readonly about: string;
  /** Its settings, as flags and keys of a configuration; a program gives them by the same names. */
  readonly options: OptionTable;
  /** The objective with some settings, which are checked where they were read. */
  make(settings: Readonly<Record<string, unknown>>): Objective;
  /** The option without which it can't be made, where there is one. */
  readonly needs?: string;
}

/** A function from settings to an objective, with what the command line needs to offer it. */
export function kindOf<const T extends OptionTable>(
  about: string,
  options: T,
  make: (settings: Resolved<T>) => Objective,
): ObjectiveKind {
  const made = (settings: Readonly<Record<string, unknown>>) => make(resolveOptions(options, settings as Given<T>));
  return { name: made({}).name, about, options, make: made };
}
