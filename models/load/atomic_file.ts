import { FileError } from "../../core/errors.ts";

/**
 * Writes a file so that its path holds either the old bytes or all of the new ones: a temporary file in the same folder,
 * flushed to the disk, then renamed over it. Makes the folder where it is missing. Throws a {@link FileError} that says
 * why where it can't be written; the temporary file is then removed.
 */
export function writeFileAtomic(path: string, parts: Iterable<Uint8Array>): void {
  const temporary = `${path}.part`;
  writeFlushed(temporary, parts);
  replaceFile(temporary, path);
}

/** Writes a file and flushes it to the disk, making its folder where it is missing; a half-written one is removed. */
export function writeFlushed(path: string, parts: Iterable<Uint8Array>): void {
  explainWriting(path, () => {
    Deno.mkdirSync(folderOf(path), { recursive: true });
    const file = Deno.openSync(path, { write: true, create: true, truncate: true });
    try {
      for (const part of parts) {
        for (let done = 0; done < part.length;) done += file.writeSync(part.subarray(done));
      }
      file.syncSync();
    } catch (error) {
      file.close();
      Deno.removeSync(path);
      throw error;
    }
    file.close();
  });
}

/** Renames `from` over `to`, in one folder, and flushes that folder where the system can. */
export function replaceFile(from: string, to: string): void {
  explainWriting(to, () => {
    Deno.renameSync(from, to);
    flushFolder(folderOf(to));
  });
}

/** Flushes what a folder lists to the disk, where the system can. */
export function flushFolder(path: string): void {
  if (Deno.build.os === "windows") return; // a folder can't be opened there; a rename is atomic still
  using folder = Deno.openSync(path);
  folder.syncSync();
}

/** The folder that holds a path (`.` for a bare name). */
export function folderOf(path: string): string {
  const end = Math.max(path.lastIndexOf("/"), Deno.build.os === "windows" ? path.lastIndexOf("\\") : -1);
  return end < 0 ? "." : end === 0 ? "/" : path.slice(0, end);
}

function explainWriting(path: string, action: () => void): void {
  try {
    action();
  } catch (error) {
    const reason = reasonOf(error, path);
    if (reason === null) throw error;
    throw new FileError(`${path} can't be written: ${reason}.`);
  }
}

function reasonOf(error: unknown, path: string): string | null {
  if (error instanceof Deno.errors.NotCapable) {
    return `Deno was not allowed to; run with --allow-write=${folderOf(path)}`;
  }
  if (error instanceof Deno.errors.PermissionDenied) {
    return "the system does not allow it; check the folder's permissions";
  }
  if (error instanceof Deno.errors.NotADirectory || error instanceof Deno.errors.AlreadyExists) {
    return "a part of its path is a file, not a folder; choose another folder";
  }
  if (error instanceof Deno.errors.IsADirectory) return "a folder has that name; choose another";
  const message = error instanceof Error ? error.message : "";
  if (/os error 28|ENOSPC/.test(message)) return "the disk is full; make room";
  if (/os error 30|EROFS/.test(message)) return "the disk is read-only; choose another folder";
  return null;
}
