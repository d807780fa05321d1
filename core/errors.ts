/**
 * Every error this library raises on purpose is a {@link LowrankError}: one sentence that names the values, what was
 * demanded and the mend. Anything else that is thrown is a bug of the library or of the caller's own code.
 */
export class LowrankError extends Error {
  /** The name that JavaScript prints. */
  override name = "LowrankError";
}

/** Shapes or dtypes that do not fit the operation. */
export class ShapeError extends LowrankError {
  /** The name that JavaScript prints. */
  override name = "ShapeError";
}

/** An option, a flag or an argument that can't be honoured. */
export class OptionError extends LowrankError {
  /** The name that JavaScript prints. */
  override name = "OptionError";
}

/** A file that is missing, truncated, malformed or can't be written. */
export class FileError extends LowrankError {
  /** The name that JavaScript prints. */
  override name = "FileError";
}

/** Training or evaluation data that can't be used. */
export class DataError extends LowrankError {
  /** The name that JavaScript prints. */
  override name = "DataError";
}

/** A device that is missing, too small, or that failed. */
export class DeviceError extends LowrankError {
  /** The name that JavaScript prints. */
  override name = "DeviceError";
}

/** The candidate nearest to `word` by edit distance, or null when nothing is near enough to suggest. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null;
  let least = Math.max(2, Math.ceil(word.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(substitute, previous[j] + 1, row[j - 1] + 1));
    }
    previous = row;
  }
  return previous[b.length];
}
