/**
 * What each thread of the CPU device does. A program is a table of steps; one step is open at a time, and whoever is
 * free takes units of its work until none are left. The thread that finishes the last unit opens the next step, after
 * doing itself all that are too small to share. So nobody waits for a thread that is late: only for work in hand.
 *
 * The same function runs on the main thread and, as source text, in the workers: it names nothing outside itself.
 * Everything that threads share lies in the first words of the memory ({@link words}) and in the table: per step
 * `[slot, version, module address, module bytes, units, grain, operands, operand addresses…]`. A thread keeps a kernel's
 * instance in its slot until it meets another version there.
 */

import type { BlasProduct } from "./blas.ts";

/** Words at the start of the memory, by position. */
export const words = {
  /** Changes whenever a step was opened; all who wait, wait for that. */
  wake: 0,
  /** Not 0 once the workers are to end. */
  ending: 1,
  /** 64 bits: the number of the open step over its next free unit, so that a late thread's claim fails. */
  next: 2,
  /** Word position of the open step, and how many of its units are done. */
  step: 4,
  done: 5,
  /** Word position past the last step. */
  last: 6,
  /** The steps opened so far, and that number when the last program was finished: it is while the two are equal. */
  opened: 7,
  finished: 8,
  /** Address of thread 0's scratch, and bytes from one thread's to the next. */
  scratch: 9,
  scratchStride: 10,
  /** Not 0 once a unit has failed; its message lies at `message.address`. */
  failed: 11,
  messageLength: 12,
  /** Threads that sleep, or are about to: only then is waking them, which takes microseconds, worth a call. */
  asleep: 13,
  /** Seconds without any progress after which the main thread gives its workers up. */
  patience: 14,
  /** A step without work, which is open between programs. */
  idle: 32,
} as const;

/** Words of a step before its operand addresses. */
export const stepWords = {
  slot: 0,
  version: 1,
  address: 2,
  bytes: 3,
  units: 4,
  grain: 5,
  operands: 6,
  first: 7,
} as const;

/** Where a failed thread leaves its message (UTF-8), and the most bytes of it. */
export const message = { address: 256, bytes: 1024 } as const;

/** Bytes at the start of the memory that the threads use to meet. */
export const reservedBytes = 2048;

/** The layout of the shared words, handed over because a worker's copy of the source can't see this module. */
export interface Layout {
  readonly words: typeof words;
  readonly stepWords: typeof stepWords;
  readonly message: typeof message;
}

/** One kernel's entry point. */
export type KernelFunction = (operands: number, scratch: number, start: number, end: number) => void;

/** One thread's part in running programs. */
export interface Walker {
  /**
   * Runs the table from the step at word `first` on, with whoever helps. True when all of it is done; false when a thread that
   * took a part of it does not come back.
   */
  run(first: number): boolean;
  /** Helps with every program until it has to end. */
  serve(): void;
}

/** `thread` is 0 on the main thread; `product` is what kernels for a BLAS import. */
export function createWalker(
  memory: WebAssembly.Memory,
  thread: number,
  layout: Layout,
  product: BlasProduct | null,
): Walker {
  const { words, stepWords, message } = layout;
  // Polls before a thread goes to sleep: some tens of microseconds.
  const spins = 20000;
  const kernels: ({ readonly version: number; readonly run: KernelFunction } | undefined)[] = [];
  // Seconds of this thread's longest call: others have the same work.
  let longest = 0;
  const imports = { m: { m: memory }, ...(product && { b: { product } }) };
  let view = new Int32Array(memory.buffer);
  let claims = new BigInt64Array(memory.buffer, 4 * words.next, 1);

  // A memory that has grown has a new buffer.
  const refresh = () => {
    if (view.buffer === memory.buffer) return;
    view = new Int32Array(memory.buffer);
    claims = new BigInt64Array(memory.buffer, 4 * words.next, 1);
  };

  /** True once something has happened; false after `seconds` of nothing. */
  const waitWhile = (seen: number, seconds = Infinity): boolean => {
    for (let i = 0; i < spins; i++) if (Atomics.load(view, words.wake) !== seen) return true;
    // Whoever opens a step after this sees a sleeper; whoever did before has changed what is waited for.
    Atomics.add(view, words.asleep, 1);
    const woken = Atomics.wait(view, words.wake, seen, 1000 * seconds) !== "timed-out";
    Atomics.sub(view, words.asleep, 1);
    return woken;
  };

  // Claims are closed before the step changes, so that a claim that holds was made of the step that was read with it.
  // Once they are open again the step may be finished and the next be opened at any time: what follows must bear that.
  const open = (step: number) => {
    const number = Atomics.add(view, words.opened, 1) + 1;
    const fresh = BigInt(number) << 32n;
    Atomics.store(claims, 0, fresh | 0xffffffffn);
    Atomics.store(view, words.done, 0);
    Atomics.store(view, words.step, step);
    Atomics.store(claims, 0, fresh);
    if (step === words.idle) Atomics.store(view, words.finished, number);
    Atomics.add(view, words.wake, 1);
    if (Atomics.load(view, words.asleep) > 0) Atomics.notify(view, words.wake);
  };

  const fail = (error: unknown) => {
    if (Atomics.compareExchange(view, words.failed, 0, 1) !== 0) return;
    const text = new TextEncoder().encode(error instanceof Error ? error.message : String(error));
    const length = Math.min(text.length, message.bytes);
    new Uint8Array(memory.buffer, message.address, length).set(text.subarray(0, length));
    Atomics.store(view, words.messageLength, length);
  };

  const load = (step: number): KernelFunction => {
    const slot = view[step + stepWords.slot], version = view[step + stepWords.version];
    const known = kernels[slot];
    if (known?.version === version) return known.run;
    const address = view[step + stepWords.address] >>> 0;
    const bytes = new Uint8Array(memory.buffer, address, view[step + stepWords.bytes]).slice();
    const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), imports);
    const run = instance.exports.run as KernelFunction;
    kernels[slot] = { version, run };
    return run;
  };

  // Once a unit has failed the rest are only counted, so that the program comes to its end.
  const work = (step: number, start: number, end: number) => {
    if (Atomics.load(view, words.failed) !== 0) return;
    try {
      const scratch = (view[words.scratch] >>> 0) + thread * view[words.scratchStride];
      load(step)((step + stepWords.first) * 4, scratch, start, end);
    } catch (error) {
      fail(error);
    }
  };

  /** Opens the first step from `step` on that is worth sharing; the small ones before it are done here and now. */
  const advance = (step: number) => {
    for (; step < view[words.last]; step += stepWords.first + view[step + stepWords.operands]) {
      const units = view[step + stepWords.units];
      if (units > view[step + stepWords.grain]) return open(step);
      work(step, 0, units);
    }
    open(words.idle);
  };

  /** Takes units of the open step until none are left. */
  const help = () => {
    for (;;) {
      const claim = Atomics.load(claims, 0);
      const step = Atomics.load(view, words.step);
      refresh();
      // What is read here is only acted on if the claim then holds: the step was open all the while.
      const units = view[step + stepWords.units] | 0, grain = view[step + stepWords.grain] | 0;
      const start = Number(claim & 0xffffffffn);
      // A thread that has not yet learnt of the memory's growth can't read the whole table: it helps another time.
      if (start >= units || Atomics.load(view, words.last) > view.length) return;
      if (Atomics.compareExchange(claims, 0, claim, claim + BigInt(grain)) !== claim) continue;
      const end = Math.min(start + grain, units);
      const began = performance.now();
      work(step, start, end);
      longest = Math.max(longest, (performance.now() - began) / 1000);
      // A thread that was given up comes too late.
      if (Atomics.load(view, words.ending) !== 0 && thread !== 0) return;
      if (Atomics.add(view, words.done, end - start) + end - start === units) {
        advance(step + stepWords.first + view[step + stepWords.operands]);
      }
    }
  };

  const run = (first: number) => {
    refresh();
    advance(first);
    // Seconds are counted by waits: a process that was stopped for an hour has waited once.
    let idle = 0, last = -1;
    for (;;) {
      const seen = Atomics.load(view, words.wake);
      if (Atomics.load(view, words.finished) === Atomics.load(view, words.opened)) return true;
      help();
      if (waitWhile(seen, 1)) continue;
      const progress = Atomics.load(view, words.done);
      idle = progress === last ? idle + 1 : 0;
      last = progress;
      if (idle >= Math.max(view[words.patience], 50 * longest)) return false;
    }
  };

  const serve = () => {
    for (;;) {
      const seen = Atomics.load(view, words.wake);
      if (Atomics.load(view, words.ending) !== 0) return;
      help();
      waitWhile(seen);
    }
  };

  return { run, serve };
}
