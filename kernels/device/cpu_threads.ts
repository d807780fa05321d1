/** The worker threads of the CPU device: started from source text, so that they need no permission. */
import { type BlasLibrary, openProduct } from "./blas.ts";
import { createWalker, message, stepWords, type Walker, words } from "./cpu_walk.ts";

const layout = { words, stepWords, message };

/** The part of node:worker_threads used here. Its workers, unlike web ones, need not keep the process alive. */
interface WorkerThreads {
  readonly Worker: new (source: string, options: { eval: true; workerData: unknown }) => WorkerThread;
}

interface WorkerThread {
  once(event: "message" | "error", listener: (value: unknown) => void): void;
  unref(): void;
  terminate(): Promise<number>;
}

/** The main thread's walker and the workers that walk with it. */
export class CpuThreads implements Disposable {
  readonly walker: Walker;
  readonly #memory: WebAssembly.Memory;
  readonly #workers: readonly WorkerThread[];

  private constructor(memory: WebAssembly.Memory, workers: readonly WorkerThread[], blas: BlasLibrary | null) {
    this.#memory = memory;
    this.#workers = workers;
    this.walker = createWalker(memory, 0, layout, blas && openProduct(memory, blas));
  }

  /** Threads that take part, the main one included. */
  get count(): number {
    return this.#workers.length + 1;
  }

  /** Whether this engine has worker threads that share memory. */
  static get available(): boolean {
    return typeof SharedArrayBuffer !== "undefined" && workerThreads() !== undefined;
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
  ): Promise<CpuThreads> {
    const { Worker } = workerThreads()!;
    new Int32Array(memory.buffer)[words.step] = words.idle;
    const source = `const { parentPort, workerData } = require("node:worker_threads");
      const createWalker = ${createWalker};
      const openProduct = ${openProduct};
      const { memory, thread, layout, blas } = workerData;
      const walker = createWalker(memory, thread, layout, blas && openProduct(memory, blas));
      parentPort.postMessage("ready");
      walker.serve();`;
    const workers = Array.from(
      { length: count - 1 },
      (_, i) => new Worker(source, { eval: true, workerData: { memory, thread: i + 1, layout, blas } }),
    );
    const ready = workers.map((worker) =>
      new Promise<void>((resolve, reject) => {
        worker.once("message", () => resolve());
        worker.once("error", reject);
      })
    );
    try {
      await Promise.all(ready);
    } catch (error) {
      await Promise.all(workers.map((worker) => worker.terminate()));
      throw error;
    }
    for (const worker of workers) worker.unref();
    return new CpuThreads(memory, workers, blas);
  }

  /** Runs the table of steps in words [first, last) and returns when all of it is done. Throws what a thread threw. */
  run(first: number, last: number): void {
    const shared = new Int32Array(this.#memory.buffer, 0, 64);
    shared[words.last] = last;
    shared[words.failed] = 0;
    this.walker.run(first);
    if (shared[words.failed] === 0) return;
    const text = new Uint8Array(this.#memory.buffer, message.address, shared[words.messageLength]).slice();
    throw new Error(new TextDecoder().decode(text));
  }

  [Symbol.dispose](): void {
    if (this.#workers.length === 0) return;
    const shared = new Int32Array(this.#memory.buffer, 0, 64);
    Atomics.store(shared, words.ending, 1);
    Atomics.add(shared, words.wake, 1);
    Atomics.notify(shared, words.wake);
  }
}

function workerThreads(): WorkerThreads | undefined {
  const host = globalThis as { process?: { getBuiltinModule?(name: string): unknown } };
  return host.process?.getBuiltinModule?.("node:worker_threads") as WorkerThreads | undefined;
}
