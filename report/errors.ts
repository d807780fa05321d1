/** How a command ends: what it prints of an error, its exit code, and what Ctrl-C does. */
import { fstatSync } from "node:fs";
import { LowrankError } from "../core/errors.ts";
import { explainOsError } from "../core/host/os_error.ts";
import { openOutput, type Output, warn } from "../core/host/output.ts";

/** The exit code after an error that the library raised on purpose. */
export const EXIT_ERROR = 1;
/** The exit code after any other error, which is a bug (EX_SOFTWARE of sysexits). */
const EXIT_BUG = 70;
/** The exit code after Ctrl-C (128 + SIGINT). */
const EXIT_INTERRUPTED = 130;

/**
 * Runs a command and ends the process where it fails. A {@link LowrankError} is one sentence on standard error and exit code
 * 1. Anything else keeps its stack, is called a bug, and exits with 70. With `--debug` among the arguments the stack is
 * always shown. `main` is given where to speak: output that nobody reads does not end its work, but text for standard output
 * that was not taken ends in one sentence, too.
 */
export async function reportErrors(
  main: (output: Output) => Promise<void>,
  args: readonly string[] = Deno.args,
): Promise<void> {
  ignoreHangup();
  const output = openOutput();
  try {
    await main(output);
  } catch (error) {
    const { text, code } = describeError(error, args.includes("--debug"));
    output.warn(text);
    Deno.exit(code);
  }
  if (output.lost === null) return;
  output.warn(describeLost(output.lost));
  Deno.exit(EXIT_ERROR);
}

/** The sentence for text that standard output did not take. */
export function describeLost(reason: string): string {
  return `error: the result can't be written to standard output: ${reason}.`;
}

/** What {@link reportErrors} prints for an error, and the exit code. */
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

/** The message of an error that is not the library's and yet the caller's to fix, else null. */
function describeRefusal(error: unknown): string | null {
  // A permission that was not given: Deno's message names what was wanted and the flag that gives it.
  if (error instanceof Deno.errors.NotCapable) {
    const [, kind, what, flag] =
      /^Requires (\w+) access(?: to "(.*)")?, run again with the --(allow-\w+) flag/.exec(error.message) ?? [];
    if (kind === undefined) return error.message;
    return `Deno gave no ${kind} access${what ? ` to ${what}` : ""}: run again with --${flag}${
      what ? `=${what}` : ""
    }.`;
  }
  // What the system refuses is never a bug.
  const reason = explainOsError(error);
  if (reason !== null) return `${(error as Error).message.replace(/^.*?\(os error \d+\)(, \w+)? ?/s, "")}: ${reason}.`;
  // A flag that `parseArgs` of node:util does not know or can't read.
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return code.startsWith("ERR_PARSE_ARGS_") ? (error as Error).message : null;
}

/** Thrown by a loop that ends early because of Ctrl-C, after saving; its message says where. */
export class Interrupted extends Error {
  override name = "Interrupted";
}

/** Signals that ask a process to end: Ctrl-C, system shutdown, a closed terminal. Windows has only the first. */
const endSignals = (): readonly Deno.Signal[] =>
  Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Whether this was initialised by `nohup`, to outlive its terminal. Deno resets every signal as it starts, so that what is left to
 * see is what `nohup` (and `./task` under it) does to standard input: a null device that can't be read.
 */
function isNohup(): boolean {
  if (Deno.build.os === "windows" || Deno.stdin.isTerminal()) return false;
  try {
    if (fstatSync(0).isCharacterDevice()) Deno.stdin.readSync(new Uint8Array(1));
    return false;
  } catch {
    return true;
  }
}

/** Under `nohup`, lets the process live on when its terminal is closed. */
export function ignoreHangup(): void {
  if (isNohup()) Deno.addSignalListener("SIGHUP", () => {});
}

/** Milliseconds in which a second Ctrl-C is the first one, forwarded by another process. */
const echo = 250;

/**
 * Watches for Ctrl-C and other signals to end. After the first, `signal` is aborted: the loop is to finish its step, save and
 * throw {@link Interrupted}. A second Ctrl-C ends the process at once. Disposing stops watching.
 */
export function onInterrupt(notify: (line: string) => void = warn): Disposable & { signal: AbortSignal } {
  const controller = new AbortController();
  let mayEnd = false;
  const first = () => {
    controller.abort();
    notify("Interrupted: finishing this step and saving; press Ctrl-C again to stop at once.");
    // Twice, so that echoes which wait behind a long step are heard before the second timer.
    const arm = () => Deno.unrefTimer(setTimeout(() => mayEnd = true));
    Deno.unrefTimer(setTimeout(arm, echo));
  };
  const handlers = new Map(
    endSignals().filter((signal) => signal !== "SIGHUP" || !isNohup()).map((signal) => [signal, () => {
      if (!controller.signal.aborted) first();
      else if (signal === "SIGINT" && mayEnd) Deno.exit(EXIT_INTERRUPTED);
    }]),
  );
  for (const [signal, handle] of handlers) Deno.addSignalListener(signal, handle);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => handlers.forEach((handle, signal) => Deno.removeSignalListener(signal, handle)),
  };
}
