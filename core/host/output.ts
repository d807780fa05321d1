/**
 * Standard output and standard error. A closed terminal, a reader that has ended or a full disk is no reason for work
 * to end: nothing here throws.
 */
import { explainOsError } from "./os_error.ts";

/** Where a program writes its output. */
export interface Output {
  /** Writes a line to standard output. */
  print(line: string): void;
  /** Writes a text to standard output, without a line's end; whether anybody takes more. */
  write(text: string): boolean;
  /** Writes a line to standard error. */
  warn(line: string): void;
  /** Why standard output took no more, in words; null while it does, and where its reader just had enough (`| head`). */
  readonly lost: string | null;
}

/** Standard output and standard error; after a first failure nothing more goes to standard output, which would have a gap. */
export function openOutput(): Output {
  let failed: unknown = null;
  const write = (text: string) => {
    failed ??= writeAll(Deno.stdout, shownOn(Deno.stdout, text));
    return failed === null;
  };
  return {
    print: (line) => void write(`${line}\n`),
    write,
    warn,
    get lost() {
      if (failed === null || failed instanceof Deno.errors.BrokenPipe) return null;
      return explainOsError(failed) ?? String(failed);
    },
  };
}

/** Writes a line to standard error, or to a page's console. */
export function warn(line: string): void {
  if (typeof Deno === "undefined") console.warn(line);
  else writeToStderr(`${line}\n`);
}

/** Writes a text to standard error. */
export function writeToStderr(text: string): void {
  writeAll(Deno.stderr, shownOn(Deno.stderr, text));
}

/** Writes what this program itself has made for a terminal, with commands to it, to standard error. */
export function drawOnStderr(text: string): void {
  writeAll(Deno.stderr, text);
}

/**
 * A text as a terminal is given it. Names in files and text of models are others' words: what would move the cursor, change a
 * title or turn the reading direction is shown as a mark. What is piped is left as it is.
 */
function shownOn(stream: { isTerminal(): boolean }, text: string): string {
  return stream.isTerminal()
    ? text.replace(/\r\n/g, "\n").replace(/(?![\n\t])[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, "\ufffd")
    : text;
}

/** Whether standard error is a terminal, and how wide: 80 columns where that can't be known. */
export function openTerminalSize(): { readonly terminal: boolean; readonly columns: number } {
  const terminal = Deno.stderr.isTerminal();
  try {
    return { terminal, columns: terminal && Deno.consoleSize().columns || 80 };
  } catch {
    return { terminal, columns: 80 }; // it was closed meanwhile
  }
}

/** Writes all of a text; what stopped it, or null. */
function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): unknown {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += stream.writeSync(bytes.subarray(at));
    } catch (error) {
      if (error instanceof Deno.errors.WouldBlock) pause(); // another process has set the pipe so
      else if (!(error instanceof Deno.errors.Interrupted)) return error;
    }
  }
  return null;
}

function pause(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
}
