import type { Device } from "./device.ts";

/** Growth that is looked into, at the least and at the most. */
const [minGrowth, maxGrowth] = [2 ** 26, 2 ** 30];
/** The engine counts these bytes and collects; nothing touches them, so they cost no memory. */
const pressureBytes = 2 ** 26;
const [minRounds, maxRounds] = [3, 8];

/**
 * Tensors that were only forgotten are freed when the engine collects them, but it knows nothing of the memory behind them,
 * and tells of them between tasks only. So whoever waits for a device whose memory has grown makes it collect, and waits for
 * one task more.
 */
export class Reclaimer {
  /** Bytes that were held after the last time. */
  #kept = 0;

  constructor(private readonly device: Pick<Device, "memory" | "capacity">) {}

  /** Frees what was forgotten, where the memory has grown by much since the last time. */
  async collect(): Promise<void> {
    if (this.device.memory.current < this.#kept + this.#growth()) return;
    // Some rounds pass before the engine has looked at objects that are old, and has reported all of them.
    for (let round = 1, freed = false; round <= maxRounds; round++) {
      const before = this.device.memory.current;
      this.press();
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (this.device.memory.current < before) freed = true;
      else if (freed || round >= minRounds) break;
    }
    this.#kept = this.device.memory.current;
  }

  /** Makes the engine collect: what it finds forgotten is freed at the next task. */
  press(): void {
    for (let i = 0; i < 4; i++) new ArrayBuffer(pressureBytes);
  }

  #growth(): number {
    const room = (this.device.capacity ?? Infinity) - this.#kept;
    return Math.min(Math.max(minGrowth, Math.min(this.#kept, maxGrowth)), room / 2);
  }
}
