/** How a command ends: what it prints of an error, its exit code, and what Ctrl-C does. */
import { LowrankError } from "../core/errors.ts";

/** The exit code after an error that the library raised on purpose. */
export const EXIT_ERROR = 1;
/** The exit code after any other error, which is a bug (EX_SOFTWARE of sysexits). */
export const EXIT_BUG = 70;
/** The exit code after Ctrl-C (128 + SIGINT). */
export const EXIT_INTERRUPTED = 130;

/**
 * Runs a command and ends the process where it fails. A {@link LowrankError} is one sentence on standard error and exit code
 * 1. Anything else keeps its stack, is called a bug, and exits with 70. With `--debug` among the arguments the stack is
 * always shown.
 */
export async function reportErrors(main: () => Promise<void>, args: readonly string[] = Deno.args): Promise<void> {
  try {
    await main();
  } catch (error) {
    const { text, code } = describeError(error, args.includes("--debug"));
    console.error(text);
    Deno.exit(code);
  }
}

/** What {@link reportErrors} prints of an error, and the exit code. */
export function describeError(error: unknown, debug: boolean): { text: string; code: number } {
  if (error instanceof Interrupted) return { text: error.message, code: EXIT_INTERRUPTED };
  if (error instanceof LowrankError) {
    return { text: debug ? withStack(error) : `error: ${error.message}`, code: EXIT_ERROR };
  }
  const refusal = describeRefusal(error);
  if (refusal !== null) return { text: debug ? withStack(error) : `error: ${refusal}`, code: EXIT_ERROR };
  return {
    text: `${withStack(error)}\nThis is a bug in lowrank: please report it with the lines above.`,
    code: EXIT_BUG,
  };
}

function withStack(error: unknown): string {
  return error instanceof Error ? error.stack ?? String(error) : `thrown: ${Deno.inspect(error)}`;
}

/** The message of an error that is not the library's and yet the caller's to mend, else null. */
function describeRefusal(error: unknown): string | null {
  // A permission that was not given: Deno's message names the flag that gives it.
  if (error instanceof Deno.errors.NotCapable) return error.message;
  // A flag that `parseArgs` of node:util does not know or can't read.
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return code.startsWith("ERR_PARSE_ARGS_") ? (error as Error).message : null;
}

/** Thrown by a loop that ends early because of Ctrl-C, after saving; its message says where. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** What asks a process to end: Ctrl-C, the system that shuts down, the terminal that is closed. Windows has the first. */
const endSignals = (): readonly Deno.Signal[] =>
  Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Watches for Ctrl-C and other signals to end. After the first, `signal` is aborted: the loop is to finish its step, save and
 * throw {@link Interrupted}. The second ends the process at once. Disposing stops watching.
 */
export function onInterrupt(notify: (line: string) => void = console.error): Disposable & { signal: AbortSignal } {
  const controller = new AbortController();
  const handle = () => {
    if (controller.signal.aborted) Deno.exit(EXIT_INTERRUPTED);
    controller.abort();
    notify("Interrupted: finishing this step and saving; press Ctrl-C again to stop at once.");
  };
  for (const signal of endSignals()) Deno.addSignalListener(signal, handle);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => endSignals().forEach((signal) => Deno.removeSignalListener(signal, handle)),
  };
}
