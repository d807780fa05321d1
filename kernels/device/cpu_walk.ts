/**
 * What each thread of the CPU device does: walk a program's steps together with the others, taking work in chunks and
 * meeting at a barrier after each step. The same function runs on the main thread and, as source text, in the workers;
 * so it names nothing outside itself.
 *
 * Everything that threads share lies in the first words of the memory ({@link words}) and in the program's table: per
 * step `[kernel, module address, module bytes, units, grain, next unit, operands, operand addresses…]`.
 */

/** Words at the start of the memory, by position. */
export const words = {
  /** Counts the commands given; workers wait for it to change. */
  command: 0,
  /** What to do: 1 = walk the table, 2 = end. */
  action: 1,
  table: 2,
  steps: 3,
  /** Address of thread 0's scratch, and bytes from one thread's to the next. */
  scratch: 4,
  scratchStride: 5,
  /** Threads that have arrived at the barrier, and how often it has opened. */
  arrived: 6,
  opened: 7,
  /** Not 0 once a thread has failed; its message lies at `messageBytes`. */
  failed: 8,
  messageLength: 9,
} as const;

/** Words of a step before its operand addresses. */
export const stepWords = {
  kernel: 0,
  address: 1,
  bytes: 2,
  units: 3,
  grain: 4,
  next: 5,
  operands: 6,
  first: 7,
} as const;

/** Where a failed thread leaves its message (UTF-8), and the most bytes of it. */
export const message = { address: 256, bytes: 1024 } as const;

/** Bytes at the start of the memory that the threads use to meet. */
export const reservedBytes = 2048;

/** Where the shared words lie; handed over because a worker's copy of the source can't see this module. */
export interface Layout {
  readonly words: typeof words;
  readonly stepWords: typeof stepWords;
  readonly message: typeof message;
}

/** One kernel's entry point. */
export type KernelFunction = (operands: number, scratch: number, start: number, end: number) => void;

/** One thread's part in running programs. */
export interface Walker {
  /** The kernels compiled so far, by number. Missing ones are compiled from the module bytes that a step names. */
  readonly kernels: (KernelFunction | undefined)[];
  /** Walks the program that the shared words name, with the other threads, or alone. */
  walk(alone: boolean): void;
  /** Waits for commands until told to end. */
  serve(): void;
}

/** `thread` is 0 on the main thread; `threads` counts it. */
export function createWalker(memory: WebAssembly.Memory, thread: number, threads: number, layout: Layout): Walker {
  const { words, stepWords, message } = layout;
  // Polls before a thread goes to sleep: some tens of microseconds.
  const spins = 4000;
  const kernels: (KernelFunction | undefined)[] = [];
  let view = new Int32Array(memory.buffer);

  const waitWhile = (word: number, value: number) => {
    for (let i = 0; i < spins; i++) if (Atomics.load(view, word) !== value) return;
    while (Atomics.load(view, word) === value) Atomics.wait(view, word, value);
  };

  const meet = () => {
    const opened = Atomics.load(view, words.opened);
    if (Atomics.add(view, words.arrived, 1) === threads - 1) {
      Atomics.store(view, words.arrived, 0);
      Atomics.add(view, words.opened, 1);
      Atomics.notify(view, words.opened);
    } else waitWhile(words.opened, opened);
  };

  const fail = (error: unknown) => {
    if (Atomics.compareExchange(view, words.failed, 0, 1) !== 0) return;
    const text = new TextEncoder().encode(error instanceof Error ? error.message : String(error));
    const length = Math.min(text.length, message.bytes);
    new Uint8Array(memory.buffer, message.address, length).set(text.subarray(0, length));
    Atomics.store(view, words.messageLength, length);
  };

  const load = (at: number): KernelFunction => {
    const number = view[at + stepWords.kernel];
    const known = kernels[number];
    if (known) return known;
    const bytes = new Uint8Array(memory.buffer, view[at + stepWords.address] >>> 0, view[at + stepWords.bytes]).slice();
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: memory } });
    return kernels[number] = instance.exports.run as KernelFunction;
  };

  const work = (at: number, scratch: number) => {
    const run = load(at);
    const units = view[at + stepWords.units], grain = view[at + stepWords.grain];
    const operands = (at + stepWords.first) * 4;
    for (;;) {
      const start = Atomics.add(view, at + stepWords.next, grain);
      if (start >= units) return;
      run(operands, scratch, start, Math.min(start + grain, units));
    }
  };

  const walk = (alone: boolean) => {
    if (view.buffer !== memory.buffer) view = new Int32Array(memory.buffer);
    const steps = view[words.steps];
    const scratch = (view[words.scratch] >>> 0) + thread * view[words.scratchStride];
    let at = (view[words.table] >>> 0) / 4;
    for (let step = 0; step < steps; step++) {
      // A failed thread goes on meeting the others, so that nobody waits for it.
      if (Atomics.load(view, words.failed) === 0) {
        try {
          work(at, scratch);
        } catch (error) {
          fail(error);
        }
      }
      if (!alone) meet();
      at += stepWords.first + view[at + stepWords.operands];
    }
  };

  const serve = () => {
    for (let seen = 0;; seen++) {
      waitWhile(words.command, seen);
      if (view[words.action] === 2) return;
      walk(false);
    }
  };

  return { kernels, walk, serve };
}
