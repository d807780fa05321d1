import { DeviceError } from "../../../core/errors.ts";

/**
 * Where everything that WebGPU reports late is kept until somebody waits: WebGPU validates, compiles and allocates behind
 * the caller's back, so a failed call returns as if it had worked. `check` is awaited by every read.
 */
export class Failures {
  readonly #pending = new Set<Promise<DeviceError | null>>();
  #first: DeviceError | null = null;
  #lost: DeviceError | null = null;
  #closing = false;
  /** Tells those who wait that the device is gone. */
  readonly #waiting = new Set<(error: DeviceError) => void>();

  constructor(readonly device: GPUDevice, readonly name: string) {
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#keep(this.#describe((event as GPUUncapturedErrorEvent).error));
    });
    device.lost.then(({ message, reason }) => {
      const why = message || reason;
      const lost = new DeviceError(
        `The device ${name} was lost (${why}): what it held is gone; begin again from the last saved state, ` +
          `or use --device cpu`,
      );
      if (!this.#closing) this.#lost = lost;
      for (const tell of this.#waiting) tell(lost);
    });
  }

  /** Runs `make` and keeps, for the next check, the validation error it may cause, as `describe` tells it. */
  watch<T>(make: () => T, describe?: (message: string) => DeviceError | Promise<DeviceError>): T {
    this.device.pushErrorScope("validation");
    try {
      return make();
    } finally {
      const report = this.device.popErrorScope().then(async (error) => {
        if (error) return describe ? await describe(error.message) : this.#describe(error);
        this.#pending.delete(report);
        return null;
      });
      this.#pending.add(report);
    }
  }

  /** What comes of `promise`, or the loss of the device: nobody waits for one that is gone. */
  orLost<T>(promise: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      promise.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  /** Waits for reports under way and throws the first failure there was; later ones follow from it. */
  async check(): Promise<void> {
    const pending = [...this.#pending];
    this.#pending.clear();
    const reports = await Promise.all(pending);
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
