/** The rows that a command reads. */
import { DataError } from "../core/errors.ts";
import { countOf, formatCount } from "../core/host/format.ts";
import type { Tokenizer } from "../models/load/tokenizer.ts";
import type { Example } from "../data/examples.ts";
import type { DataSet } from "../data/data_set.ts";
import { BadRow } from "../data/rows.ts";
import { openData, openDataNames, type OpenDataOptions } from "../train/objectives/mod.ts";
import type { Terminal } from "./command.ts";
import { pickOptions } from "../core/options.ts";

/** Opens a file of rows and says what it holds. `role` is a word for it: `train`. */
export function openRows(
  role: string,
  path: string,
  tokenizer: Tokenizer,
  options: OpenDataOptions,
  terminal: Terminal,
): DataSet {
  const data = withSkipHint(() => openData(path, tokenizer, pickOptions(options, openDataNames)));
  terminal.say(
    `${role.padEnd(9)} ${countOf(data.length, "row")} of ${data.format} in ${path}${
      data.streamed ? ", read as they are needed" : ""
    }`,
  );
  warnSkipped(data, terminal);
  if (data.unused.size > 0) {
    const keys = [...data.unused].map(([key, count]) => `${JSON.stringify(key)} (${formatCount(count)})`);
    terminal.warn(`note: ${path}: keys of rows that nothing reads: ${keys.join(", ")}`);
  }
  return data;
}

/** The result of `read`; if it finds a bad row, the error says how to skip such rows. */
export function withSkipHint<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof BadRow)) throw error;
    throw new DataError(`${error.message} Or skip such rows with --skip-bad-rows.`);
  }
}

/** Says which rows were left out. */
export function warnSkipped({ path, skipped }: DataSet, terminal: Terminal): void {
  if (skipped.count === 0) return;
  const were = skipped.count === 1 ? "was" : "were";
  terminal.warn(`${path}: ${countOf(skipped.count, "bad row")} ${were} left out, such as: ${skipped.first.join(" ")}`);
}

/** All rows of a data set that can be used, or those among the first `most`. */
export function rowsOf(data: DataSet, most = Infinity): Example[] {
  const length = Math.min(most, data.length);
  return Array.from({ length }, (_, i) => data.at(i)).filter((row) => row !== undefined);
}
