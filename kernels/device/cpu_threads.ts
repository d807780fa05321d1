/** The worker threads of the CPU device: started from source text, so that they need no permission. */
import { createWalker, message, stepWords, type Walker, words } from "./cpu_walk.ts";

const layout = { words, stepWords, message };

/** The main thread's walker and the workers that walk with it. */
export class CpuThreads implements Disposable {
  readonly walker: Walker;
  readonly #memory: WebAssembly.Memory;
  readonly #workers: readonly Worker[];
  #commands = 0;

  private constructor(memory: WebAssembly.Memory, workers: readonly Worker[]) {
    this.#memory = memory;
    this.#workers = workers;
    this.walker = createWalker(memory, 0, workers.length + 1, layout);
  }

  /** Threads that take part, the main one included. */
  get count(): number {
    return this.#workers.length + 1;
  }

  /** The main thread alone. */
  static alone(memory: WebAssembly.Memory): CpuThreads {
    return new CpuThreads(memory, []);
  }

  /** The main thread and `count - 1` workers; resolves once each has the memory. Rejects if one can't start. */
  static async start(memory: WebAssembly.Memory, count: number): Promise<CpuThreads> {
    const source = `const createWalker = ${createWalker};
      onmessage = ({ data: { memory, thread, threads, layout } }) => {
        const walker = createWalker(memory, thread, threads, layout);
        postMessage("ready");
        walker.serve();
        close();
      };`;
    const url = `data:text/javascript,${encodeURIComponent(source)}`;
    const workers = Array.from({ length: count - 1 }, () => new Worker(url, { type: "module" }));
    try {
      await Promise.all(workers.map((worker, i) =>
        new Promise<void>((resolve, reject) => {
          worker.onmessage = () => resolve();
          worker.onerror = (event) => {
            event.preventDefault();
            reject(new Error(event.message));
          };
          worker.postMessage({ memory, thread: i + 1, threads: count, layout });
        })
      ));
    } catch (error) {
      for (const worker of workers) worker.terminate();
      throw error;
    }
    return new CpuThreads(memory, workers);
  }

  /** Runs the program that the shared words name, and returns when every thread is done. Throws what a thread threw. */
  run(alone: boolean): void {
    const shared = new Int32Array(this.#memory.buffer, 0, 64);
    shared[words.failed] = 0;
    const single = alone || this.#workers.length === 0;
    if (!single) this.#command(1);
    this.walker.walk(single);
    if (shared[words.failed] === 0) return;
    const text = new Uint8Array(this.#memory.buffer, message.address, shared[words.messageLength]).slice();
    throw new Error(new TextDecoder().decode(text));
  }

  [Symbol.dispose](): void {
    if (this.#workers.length === 0) return;
    this.#command(2);
    for (const worker of this.#workers) worker.terminate();
  }

  #command(action: number): void {
    const shared = new Int32Array(this.#memory.buffer, 0, 64);
    shared[words.action] = action;
    Atomics.store(shared, words.command, ++this.#commands);
    Atomics.notify(shared, words.command);
  }
}
