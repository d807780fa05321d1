/** One run a folder: two that wrote into one would mix their checkpoints. */
import { FileError, OptionError } from "../../core/errors.ts";
import { explainOsError } from "../../core/host/os_error.ts";
import { refuseLink } from "../../models/load/files/atomic_file.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";

/**
 * Holds a folder for this process, until it is disposed of or the process ends, however it ends. The system keeps the lock,
 * on a file `.lock` that stays.
 *
 * @param options.create false where only the lock of a run that was begun there is of interest
 * @throws {OptionError} when another process holds it
 * @throws {FileError} when the folder can't be written
 */
export function lockFolder(folder: string, { create = true } = {}): Disposable {
  let file: Deno.FsFile;
  const path = `${folder}/.lock`;
  if (!create && pathKind(path) === null) return { [Symbol.dispose]: () => {} };
  refuseLink(path);
  try {
    file = Deno.openSync(path, { write: true, create });
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error; // it names the permission by itself
    throw new FileError(
      `${folder} can't be held for this run: ${explainOsError(error) ?? (error as Error).message}.`,
    );
  }
  if (!file.tryLockSync(true)) {
    file.close();
    throw new OptionError(`another run is writing into ${folder}: wait until it is done, or choose another folder.`);
  }
  return { [Symbol.dispose]: () => file.close() };
}
