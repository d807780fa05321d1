import type { Device } from "./device.ts";
import type { DeviceBuffer } from "./executable.ts";

/**
 * The memory for what programs compute on the way. One serves all programs of a device, since each runs to its end before
 * the next: as large as the largest needs.
 */
export class Arena<B extends DeviceBuffer> {
  readonly #needs = new Map<object, number>();
  #need = 0;
  #held: B | null = null;

  constructor(private readonly home: { allocate(bytes: number): B; free: Device["free"] }) {}

  /** Makes room for a program; where there is none, that of the others is as it was. */
  add(program: object, bytes: number): void {
    this.#needs.set(program, bytes);
    try {
      this.#fit();
    } catch (error) {
      this.#needs.delete(program);
      this.#need = this.#most();
      throw error;
    }
  }

  /** A program that needs no room any more. */
  remove(program: object): void {
    if (!this.#needs.delete(program)) return;
    this.#need = this.#most();
    if (this.#held && this.#need < this.#held.bytes) this.#fit();
  }

  /** The memory, or null where no program needs any. An allocation that was refused may have cost it: then it is made again. */
  get buffer(): B | null {
    if ((this.#held === null) !== (this.#need === 0)) this.#fit();
    return this.#held;
  }

  #fit(): void {
    this.#need = this.#most();
    if (this.#need === (this.#held?.bytes ?? 0)) return;
    if (this.#held) this.home.free(this.#held);
    this.#held = null;
    if (this.#need > 0) this.#held = this.home.allocate(this.#need);
  }

  #most(): number {
    let most = 0;
    for (const bytes of this.#needs.values()) most = Math.max(most, bytes);
    return most;
  }
}
