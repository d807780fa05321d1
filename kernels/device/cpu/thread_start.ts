/** How this engine starts a thread from source text, so that it needs no file and no permission. */

/** A thread that was started. */
export interface Thread {
  /** Resolves once the thread's body has returned control to say so; rejects if it can't start. */
  readonly ready: Promise<void>;
  end(): void;
}

/**
 * Starts a thread. `body` is the text of a function of the thread's data and of `ready`, which it calls once before it
 * begins to work.
 */
export type StartThread = (body: string, data: unknown) => Thread;

/** The part of node:worker_threads used here. Its workers, unlike web ones, need not keep the process alive. */
interface NodeThreads {
  readonly Worker: new (source: string, options: { eval: true; workerData: unknown }) => NodeThread;
}

interface NodeThread {
  once(event: "message" | "error" | "exit", listener: (value: unknown) => void): void;
  unref(): void;
  terminate(): Promise<number>;
}

/**
 * How threads that share memory are started here; undefined where there are none. A page shares memory only if it is
 * cross-origin isolated, and only its workers may wait for one another.
 */
export function threadStarter(): StartThread | undefined {
  if (typeof SharedArrayBuffer === "undefined") return undefined;
  const host = globalThis as {
    process?: { getBuiltinModule?(name: string): unknown };
    crossOriginIsolated?: boolean;
    WorkerGlobalScope?: unknown;
  };
  const node = host.process?.getBuiltinModule?.("node:worker_threads") as NodeThreads | undefined;
  if (node) return (body, data) => startNodeThread(node, body, data);
  return host.crossOriginIsolated && host.WorkerGlobalScope ? startWebThread : undefined;
}

function startNodeThread({ Worker }: NodeThreads, body: string, data: unknown): Thread {
  const source = `const { parentPort, workerData } = require("node:worker_threads");
    (${body})(workerData, () => parentPort.postMessage("ready"));`;
  const worker = new Worker(source, { eval: true, workerData: data });
  const ready = new Promise<void>((resolve, reject) => {
    worker.once("message", () => {
      worker.unref();
      resolve();
    });
    worker.once("error", reject);
    worker.once("exit", () => reject(new Error("a thread ended before it began")));
  });
  return { ready, end: () => void worker.terminate() };
}

function startWebThread(body: string, data: unknown): Thread {
  const source = `onmessage = ({ data }) => (${body})(data, () => postMessage("ready"));`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url);
  const ready = new Promise<void>((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage(data);
  return { ready: ready.finally(() => URL.revokeObjectURL(url)), end: () => worker.terminate() };
}
