import type { Device } from "./device.ts";

/** Growth that is looked into, at the least and at the most. */
const [minGrowth, maxGrowth] = [2 ** 26, 2 ** 30];
/** The engine counts these bytes, and collects for them; nothing touches them, so they cost no memory. */
const pressureBytes = 2 ** 26;
/** After so many tries it goes on without. */
const maxTries = 32;

/** Is told when the engine has collected what was forgotten: a witness was among it. */
const collected = new FinalizationRegistry<{ collected: boolean }>((witness) => {
  witness.collected = true;
});

/** An object that is held until it is forgotten on purpose. By then it is as old as what else was forgotten. */
class Witness {
  readonly #seen = { collected: false };
  #held: object | null = {};
  constructor() {
    collected.register(this.#held!, this.#seen);
  }
  forget(): { readonly collected: boolean } {
    this.#held = null;
    return this.#seen;
  }
}

const nextTask = () => new Promise((resolve) => setTimeout(resolve, 0));

/**
 * Tensors that were only forgotten are freed when the engine collects them, but it knows nothing of the memory behind them,
 * and tells of them between tasks only. So whoever waits for a device whose memory has grown makes it collect, and waits for
 * one task more.
 */
export class Reclaimer {
  /** Bytes that were held after the last time. */
  #kept = 0;
  #witness = new Witness();

  constructor(private readonly device: Pick<Device, "memory" | "capacity">) {}

  /** Frees what was forgotten, where the memory has grown by much since the last time. */
  async collect(): Promise<void> {
    if (this.device.memory.current < this.#kept + this.#growth()) return;
    const witness = this.#witness.forget();
    this.#witness = new Witness();
    // Buffers that live on weigh on the old objects, which tensors are by now; those that are dropped at once don't.
    const weights: ArrayBuffer[] = [];
    for (let i = 0; i < maxTries && !witness.collected; i++) {
      weights.push(...this.press());
      await nextTask();
    }
    // What was collected with the witness is reported by another task.
    await nextTask();
    this.#kept = this.device.memory.current;
  }

  /** Makes the engine collect: what it finds forgotten is freed at the next task. Gives what weighs on it while it is held. */
  press(): ArrayBuffer[] {
    try {
      return Array.from({ length: 4 }, () => new ArrayBuffer(pressureBytes));
    } catch (error) {
      // A system that counts even what nobody touches has no more; the engine has collected before it said so.
      if (error instanceof RangeError) return [];
      throw error;
    }
  }

  #growth(): number {
    const room = (this.device.capacity ?? Infinity) - this.#kept;
    return Math.min(Math.max(minGrowth, Math.min(this.#kept, maxGrowth)), room / 2);
  }
}
