import { DeviceError } from "../../core/errors.ts";

/**
 * Where everything that WebGPU reports late is kept until somebody waits: WebGPU validates, compiles and allocates behind
 * the caller's back, so a failed call returns as if it had worked. `check` is awaited by every read.
 */
export class Failures {
  readonly #pending: Promise<DeviceError | null>[] = [];
  #first: DeviceError | null = null;
  #lost: DeviceError | null = null;
  #closing = false;

  constructor(readonly device: GPUDevice, readonly name: string) {
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#keep(this.#describe((event as GPUUncapturedErrorEvent).error));
    });
    device.lost.then(({ message, reason }) => {
      if (this.#closing) return;
      const why = message || reason;
      this.#lost = new DeviceError(
        `The device ${name} was lost (${why}): what it held is gone; begin again from the last saved state, ` +
          `or use --device cpu`,
      );
    });
  }

  /** Runs `make` and keeps, for the next check, the validation error it may cause, as `describe` tells it. */
  watch<T>(make: () => T, describe?: (message: string) => DeviceError | Promise<DeviceError>): T {
    this.device.pushErrorScope("validation");
    const made = make();
    this.#pending.push(
      this.device.popErrorScope().then((error) => error && (describe?.(error.message) ?? this.#describe(error))),
    );
    return made;
  }

  /** Waits for reports under way and throws the first failure there was; later ones follow from it. */
  async check(): Promise<void> {
    const reports = await Promise.all(this.#pending.splice(0));
    for (const report of reports) if (report) this.#keep(report);
    this.checkNow();
  }

  /** Throws the first failure that is known, once; that the device is lost, always. */
  checkNow(): void {
    const error = this.#lost ?? this.#first;
    this.#first = null;
    if (error) throw error;
  }

  /** From here on a lost device is no failure: it is being closed. */
  close(): void {
    this.#closing = true;
  }

  #keep(error: DeviceError): void {
    this.#first ??= error;
  }

  #describe(error: GPUError): DeviceError {
    if (error instanceof GPUOutOfMemoryError) {
      return new DeviceError(
        `The device ${this.name} is out of memory (${error.message}): use a smaller batch, a narrower --dtype, ` +
          `or --device cpu`,
      );
    }
    return new DeviceError(`The device ${this.name} refused a command: ${error.message}`);
  }
}
