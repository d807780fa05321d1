/** A program that is ready to run, and the memory that it runs on. */
import { DeviceError } from "../../core/errors.ts";

/** A run that failed in its middle: what it was to write holds anything. */
export class RunError extends DeviceError {}

/** Memory that a device owns. Freed once, by the tensor that holds it. */
export interface DeviceBuffer {
  /** Its size. */
  readonly bytes: number;
}

/** A program made ready to run on one device. */
export interface Executable {
  /**
   * Queues one run. `args[i]` is the buffer of argument i; `outputs[i]` a buffer for output i (for a donated output, the
   * argument's own). Returns once queued, not once done. A {@link RunError} says that it failed in its middle; after any
   * other error nothing was written.
   */
  run(args: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[]): void;
  /** Runs once and gives the milliseconds of each step by the device's own clock, where it has one. */
  time?(args: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[]): Promise<readonly number[]>;
  /** Frees what the executable holds (its arena, its pipelines). */
  free(): void;
}
