/** The worker threads of the CPU device: started from source text, so that they need no permission. */
import { type BlasLibrary, openProduct } from "./blas.ts";
import { createWalker, message, stepWords, type Walker, words } from "./walk.ts";
import { type Thread, threadStarter } from "./thread_start.ts";

const layout = { words, stepWords, message };

/** The main thread's walker and the workers that walk with it. */
export class CpuThreads implements Disposable {
  readonly walker: Walker;
  /** Threads that there were at first. */
  readonly started: number;
  readonly #memory: WebAssembly.Memory;
  #workers: readonly Thread[];

  private constructor(memory: WebAssembly.Memory, workers: readonly Thread[], blas: BlasLibrary | null) {
    this.#memory = memory;
    this.#workers = workers;
    this.started = workers.length + 1;
    this.walker = createWalker(memory, 0, layout, blas && openProduct(memory, blas));
  }

  /** Threads that take part, the main one included. */
  get count(): number {
    return this.#workers.length + 1;
  }

  /** Whether this engine has worker threads that share memory. */
  static get available(): boolean {
    return threadStarter() !== undefined;
  }

  /** The main thread alone. */
  static alone(memory: WebAssembly.Memory, blas: BlasLibrary | null = null): CpuThreads {
    new Int32Array(memory.buffer)[words.step] = words.idle;
    return new CpuThreads(memory, [], blas);
  }

  /** The main thread and `count - 1` workers; resolves once each is ready. Rejects if one can't start. */
  static async start(
    memory: WebAssembly.Memory,
    count: number,
    blas: BlasLibrary | null = null,
    patience = 30,
  ): Promise<CpuThreads> {
    const startThread = threadStarter()!;
    const shared = new Int32Array(memory.buffer, 0, 64);
    shared[words.step] = words.idle;
    shared[words.patience] = patience;
    const body = `({ memory, thread, layout, blas }, ready) => {
      const createWalker = ${createWalker};
      const openProduct = ${openProduct};
      const walker = createWalker(memory, thread, layout, blas && openProduct(memory, blas));
      ready();
      walker.serve();
    }`;
    const workers = Array.from(
      { length: count - 1 },
      (_, i) => startThread(body, { memory, thread: i + 1, layout, blas }),
    );
    try {
      await Promise.all(workers.map(({ ready }) => ready));
    } catch (error) {
      for (const worker of workers) worker.end();
      throw error;
    }
    return new CpuThreads(memory, workers, blas);
  }

  /** Runs the table of steps in words [first, last) and returns when all of it is done. Throws what a thread threw. */
  run(first: number, last: number): void {
    const shared = new Int32Array(this.#memory.buffer, 0, 64);
    shared[words.last] = last;
    shared[words.failed] = 0;
    if (!this.walker.run(first)) this.#giveUp(shared);
    if (shared[words.failed] === 0) return;
    const text = new Uint8Array(this.#memory.buffer, message.address, shared[words.messageLength]).slice();
    throw new Error(new TextDecoder().decode(text));
  }

  /** A worker died, or was stopped, with a part of the work: those that are left end too, and all continues without them. */
  #giveUp(shared: Int32Array): never {
    this[Symbol.dispose]();
    for (const worker of this.#workers) worker.end();
    this.#workers = [];
    shared[words.step] = words.idle;
    shared[words.finished] = shared[words.opened];
    throw new Error(
      "a worker thread did not return and was given up; the device continues with the main thread alone",
    );
  }

  [Symbol.dispose](): void {
    if (this.#workers.length === 0) return;
    const shared = new Int32Array(this.#memory.buffer, 0, 64);
    Atomics.store(shared, words.ending, 1);
    Atomics.add(shared, words.wake, 1);
    Atomics.notify(shared, words.wake);
  }
}
