import { FileError } from "../../../core/errors.ts";
import { explainOsError } from "../../../core/host/os_error.ts";

/** What a file is to hold: a text, or bytes in pieces. */
export type Contents = string | Iterable<Uint8Array>;

/**
 * Writes a file so that its path holds either the old bytes or all of the new ones: under a name of its own in the same
 * folder, flushed to the disk, then renamed over it. Makes the folder where it is missing. A link at the path is replaced, and
 * not followed; a device is refused. Throws a {@link FileError} that says why where it can't be written; nothing is left of it then.
 */
export function writeFileAtomic(path: string, contents: Contents): void {
  refuseDevice(path);
  const folder = folderOf(path);
  const temporary = `${folder}/${temporaryName()}`;
  sweep(folder);
  writeFlushed(temporary, contents, path);
  try {
    replaceFile(temporary, path);
  } catch (error) {
    removeIfPossible(temporary);
    throw error;
  }
}

/** Refuses what is neither a file nor a link to be replaced: nobody wants `/dev/full` to become a file. */
function refuseDevice(path: string): void {
  let found: Deno.FileInfo;
  try {
    found = Deno.lstatSync(path);
  } catch {
    return; // it is not there, or writing says why
  }
  if (found.isFile || found.isSymlink || found.isDirectory) return;
  throw new FileError(`${path} can't be written: it is a device, a pipe or a socket; choose another name.`);
}

/**
 * Writes a file that is not there yet and flushes it to the disk, making its folder where it is missing; a half-written one is
 * removed. `named` is what errors call it.
 */
export function writeFlushed(path: string, contents: Contents, named = path): void {
  explained(named, "written", () => {
    Deno.mkdirSync(folderOf(path), { recursive: true });
    const file = Deno.openSync(path, { write: true, createNew: true });
    try {
      hold(file);
      for (const part of typeof contents === "string" ? [new TextEncoder().encode(contents)] : contents) {
        writeAll(file, part);
      }
      file.syncSync();
    } catch (error) {
      file.close();
      removeIfPossible(path);
      throw error;
    }
    file.close();
  });
}

/** Writes all of `bytes`: the system may take a part of them at a time. */
export function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
}

/** Renames `from` over `to`, in one folder, and flushes that folder where the system can. */
export function replaceFile(from: string, to: string): void {
  explained(to, "written", () => Deno.renameSync(from, to));
  flushFolder(folderOf(to));
}

/** Flushes what a folder lists to the disk, where the system can. */
export function flushFolder(path: string): void {
  if (Deno.build.os === "windows") return; // a folder can't be opened there; a rename is atomic still
  explained(path, "written", () => {
    using folder = Deno.openSync(path);
    try {
      folder.syncSync();
    } catch (error) {
      if (!/\(os error (22|95)\)/.test((error as Error).message)) throw error; // some disks flush files alone
    }
  });
}

/** Removes a file, a link or a folder with all that is in it, if it is there. */
export function removeTree(path: string): void {
  explained(path, "removed", () => {
    try {
      Deno.removeSync(path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  });
}

/** {@link removeTree} where what matters is over: who can't write can't remove either. */
export function removeIfPossible(path: string): void {
  try {
    removeTree(path);
  } catch {
    // It is found and removed by `sweep`, another day.
  }
}

/** The folder that holds a path (`.` for a bare name). */
export function folderOf(path: string): string {
  const end = Math.max(path.lastIndexOf("/"), Deno.build.os === "windows" ? path.lastIndexOf("\\") : -1);
  return end < 0 ? "." : end === 0 ? "/" : path.slice(0, end);
}

/** A name that nobody else has, for what is being written: `.3f9c2ab81d04.part`. */
export function temporaryName(): string {
  return `.${crypto.randomUUID().replaceAll("-", "").slice(0, 12)}.part`;
}

/** Removes what runs that were killed left under temporary names: whatever is a minute old and no process holds. */
export function sweep(folder: string): void {
  try {
    for (const { name, isSymlink } of Deno.readDirSync(folder)) {
      if (isSymlink || !/^\.[0-9a-f]{12}\.part$/.test(name)) continue;
      const path = `${folder}/${name}`;
      if (Date.now() - (Deno.lstatSync(path).mtime?.getTime() ?? 0) < 60_000) continue;
      using entry = Deno.openSync(path);
      if (entry.tryLockSync(true)) removeIfPossible(path);
    }
  } catch {
    // A folder that is not there, or not to be listed.
  }
}

/** Marks a file or a folder as in use by this process, until it is closed; whether the system could. */
export function hold(file: Deno.FsFile, waiting = false): void {
  try {
    if (waiting) file.lockSync(true);
    else file.tryLockSync(true);
  } catch {
    // A disk without locks.
  }
}

/**
 * Refuses a link at a path that is about to be opened for writing: who gave us the folder does not choose what else is written.
 *
 * @throws {FileError}
 */
export function refuseLink(path: string): void {
  try {
    if (!Deno.lstatSync(path).isSymlink) return;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return;
    return explained(path, "read", () => {
      throw error;
    });
  }
  throw new FileError(`${path} is a link, which is not written through: remove it, or choose another folder.`);
}

/** Does something with a path; a refusal of the system becomes a sentence: `path` can't be `done`. */
export function explained<T>(path: string, done: "written" | "removed" | "read", action: () => T): T {
  try {
    return action();
  } catch (error) {
    const reason = reasonOf(error, path);
    if (reason === null) throw error;
    throw new FileError(`${path} can't be ${done}: ${reason}.`);
  }
}

function reasonOf(error: unknown, path: string): string | null {
  if (error instanceof Deno.errors.NotCapable) {
    return `Deno was not allowed to; run with --allow-write=${folderOf(path)}`;
  }
  if (error instanceof Deno.errors.NotADirectory || error instanceof Deno.errors.AlreadyExists) {
    return "a part of its path is a file, not a folder; choose another folder";
  }
  if (error instanceof Deno.errors.IsADirectory) return "a folder has that name; choose another";
  return explainOsError(error);
}
