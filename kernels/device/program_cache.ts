import { Identities } from "../../core/identity.ts";
import type { Program } from "../ir/kernel.ts";
import type { Executable } from "./executable.ts";

/** A program that its device caches. Whoever wants to run it again keeps it, and builds it again after it was evicted. */
export interface CachedProgram {
  /** Null once the device has let the program go. */
  readonly executable: Executable | null;
  /** Its outputs, of which some are donated arguments. */
  readonly outputs: Program["outputs"];
}

interface Entry extends CachedProgram {
  executable: Executable | null;
  used: number;
  readonly bytes: number;
}

/** About what a step takes on the host, beside its kernel. */
const stepBytes = 1024;

/**
 * The programs that a device holds, by what they compute: functions that trace to one graph share one. Those that were not
 * used for longest go first, where all take more than `bound` or memory is short.
 */
export class ProgramCache {
  /** Numbers for what graphs mention by identity. */
  readonly ids: Identities = new Identities();
  /** About the bytes that they may take before the least recently used go. */
  bound = 2 ** 28;
  readonly #entries = new Map<string, Entry>();
  #latest: Entry | null = null;
  #clock = 0;
  #bytes = 0;

  constructor(private readonly device: { compile(program: Program): Executable; readonly kernelBytes: number }) {}

  /** About the bytes that all of them take, but for their arena. */
  get bytes(): number {
    return this.#bytes + this.device.kernelBytes;
  }

  /** How many are held. */
  get size(): number {
    return this.#entries.size;
  }

  /** The program of a key, which `make` builds where there is none. */
  get(key: string, make: () => Program): CachedProgram {
    let entry = this.#entries.get(key);
    if (!entry) {
      const program = make();
      const bytes = key.length + stepBytes * program.steps.length;
      entry = { executable: this.device.compile(program), outputs: program.outputs, used: 0, bytes };
      this.#entries.set(key, entry);
      this.#bytes += bytes;
    }
    this.use(entry);
    while (this.bytes > this.bound && this.#evict());
    return entry;
  }

  /** Tells that a program is about to run. */
  use(held: CachedProgram): void {
    this.#latest = held as Entry;
    this.#latest.used = ++this.#clock;
  }

  /** Lets all go but the one that was used last. Whether there was another. */
  shrink(): boolean {
    const before = this.#entries.size;
    while (this.#evict());
    return this.#entries.size < before;
  }

  /** Forgets all of them, with their device. */
  end(): void {
    for (const entry of this.#entries.values()) entry.executable = null;
    this.#entries.clear();
    this.#bytes = 0;
  }

  /** Lets the least recently used go, but never the last used. */
  #evict(): boolean {
    let oldest: [string, Entry] | null = null;
    for (const item of this.#entries) {
      if (item[1] !== this.#latest && (oldest === null || item[1].used < oldest[1].used)) oldest = item;
    }
    if (oldest === null) return false;
    const [key, entry] = oldest;
    this.#entries.delete(key);
    this.#bytes -= entry.bytes;
    const { executable } = entry;
    entry.executable = null;
    executable?.free();
    return true;
  }
}
