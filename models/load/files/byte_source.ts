import { FileError } from "../../../core/errors.ts";
import { explainOsError } from "../../../core/host/os_error.ts";

/** Bytes that can be read by range: a file, or memory. Readers of formats ask for what they need and no more. */
export interface ByteSource extends Disposable {
  /** What error sentences call it: the file's path. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /** Fills `into` from byte `offset` on. Throws a {@link FileError} when the bytes are not there. */
  read(offset: number, into: Uint8Array): void;
}

/** Opens a file for reading by range. Throws a {@link FileError} that says why where it can't. */
export function openBytes(path: string): ByteSource {
  const file = attempt(path, () => ({ size: sizeOfFile(path), handle: Deno.openSync(path) }));
  return {
    name: path,
    size: file.size,
    read(offset, into) {
      checkRange(this, offset, into.length);
      attempt(path, () => {
        file.handle.seekSync(offset, Deno.SeekMode.Start);
        for (let done = 0; done < into.length;) {
          const count = file.handle.readSync(into.subarray(done));
          if (count === null) throw new FileError(`${path} became shorter while it was read.`);
          done += count;
        }
      });
    },
    [Symbol.dispose]: () => file.handle.close(),
  };
}

/** The same over bytes that are in memory already. */
export function memoryBytes(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.length,
    read(offset, into) {
      checkRange(this, offset, into.length);
      into.set(bytes.subarray(offset, offset + into.length));
    },
    [Symbol.dispose]: () => {},
  };
}

/** The size of what can be read by range: a device and a pipe have none, and might never end. */
function sizeOfFile(path: string): number {
  const info = Deno.statSync(path);
  if (info.isDirectory) throw new FileError(`${path} is a folder where a file was expected: give a file.`);
  if (!info.isFile) throw new FileError(`${path} is a device or a pipe where a file was expected: give a file.`);
  return info.size;
}

/** The most bytes of a file that is read as one text; the largest tokenizers have some thirty megabytes. */
export const longestText: number = 1 << 27;

/** Reads a text file (UTF-8). Throws a {@link FileError} where it is missing, unreadable, too long or not UTF-8. */
export function readText(path: string): string {
  const bytes = attempt(path, () => {
    const size = sizeOfFile(path);
    if (size > longestText) {
      throw new FileError(
        `${path} has ${size} bytes, and at most ${longestText} are read as one text: it is not what its name says.`,
      );
    }
    return Deno.readFileSync(path);
  });
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FileError(`${path} is not UTF-8 text: it is damaged, or not what its name says.`);
  }
}

/** Reads a JSON file that holds one object. */
export function readJsonObject(path: string): Record<string, unknown> {
  return parseJsonObject(readText(path), path);
}

/** The object that a JSON text holds; `path` is what error sentences call it. */
export function parseJsonObject(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  const depth = depthOf(text);
  if (depth > deepestJson) {
    throw new FileError(
      `${path} nests ${depth} lists and objects in each other, and at most ${deepestJson} are read: it is not what ` +
        `its name says.`,
    );
  }
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FileError(`${path} is not JSON (${(error as Error).message}): restore it from its source.`);
  }
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw new FileError(`${path} holds ${describeJson(value)} where a JSON object was expected.`);
  }
  return value as Record<string, unknown>;
}

/** The most lists and objects in each other: what walks a value calls itself for each. */
const deepestJson = 200;

/** How many brackets are open at once at most. Character by character: a pattern would run out of stack in a long string. */
function depthOf(text: string): number {
  let depth = 0, most = 0, quoted = false;
  for (let i = 0; i < text.length; i++) {
    const mark = text[i];
    if (mark === '"') quoted = !quoted;
    else if (quoted) i += mark === "\\" ? 1 : 0;
    else if (mark === "[" || mark === "{") most = Math.max(most, ++depth);
    else if (mark === "]" || mark === "}") depth--;
  }
  return most;
}

/** Whether a path is there, as a file or a folder. */
export function pathKind(path: string): "file" | "folder" | null {
  if (typeof Deno === "undefined") return null; // a page has no files
  try {
    return Deno.statSync(path).isDirectory ? "folder" : "file";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw explain(path, error);
  }
}

function describeJson(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}

function checkRange(source: ByteSource, offset: number, length: number): void {
  if (offset < 0 || offset + length > source.size) {
    throw new FileError(
      `${source.name} ends at byte ${source.size} where bytes ${offset} to ${offset + length} were expected: ` +
        `it is truncated; download it again.`,
    );
  }
}

function attempt<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw explain(path, error);
  }
}

/** The system's refusals as sentences; what is not one of them passes through unchanged. */
function explain(path: string, error: unknown): unknown {
  if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
    return new FileError(`There is no file ${path}: check the path.`);
  }
  if (error instanceof Deno.errors.NotCapable) {
    return new FileError(`Deno was not allowed to read ${path}: run with --allow-read, or --allow-read=${path}.`);
  }
  if (error instanceof Deno.errors.FilesystemLoop) {
    return new FileError(`${path} is a link that leads back to itself: give the path of a file or a folder.`);
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return new FileError(`The system does not allow reading ${path}: check its permissions.`);
  }
  const reason = explainOsError(error);
  return reason === null ? error : new FileError(`${path} can't be read: ${reason}.`);
}
