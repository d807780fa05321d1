/**
 * Every error this library raises on purpose is a {@link LowrankError}: one sentence that names the values, what was
 * required and the remedy. Anything else that is thrown is a bug of the library or of the caller's own code.
 */
export class LowrankError extends Error {
  /** The name that JavaScript prints. */
  override name = "LowrankError";

  /**
   * An error that a person is to read.
   *
   * @param message the sentence: ends of lines, which a name in a file may have, become spaces, and a long one, which quotes
   * a long value, loses its middle
   */
  constructor(message: string, options?: ErrorOptions) {
    const line = message.replace(/\s*[\r\n]+\s*/g, " ");
    super(line.length > 2000 ? `${line.slice(0, 1000)} … ${line.slice(-800)}` : line, options);
  }
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
