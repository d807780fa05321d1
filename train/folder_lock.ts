/** One run a folder: two that wrote into one would mix their checkpoints. */
import { FileError, OptionError } from "../core/errors.ts";

/**
 * Holds a folder for this process, until it is disposed of or the process ends, however it ends. The system keeps the lock,
 * on a file `.lock` that stays.
 *
 * @throws {OptionError} when another process holds it
 * @throws {FileError} when the folder can't be written
 */
export function lockFolder(folder: string): Disposable {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(`${folder}/.lock`, { write: true, create: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error; // it names the permission by itself
    throw new FileError(`${folder} can't be held for this run: ${(error as Error).message}.`);
  }
  if (!file.tryLockSync(true)) {
    file.close();
    throw new OptionError(`another run is writing into ${folder}: wait until it is done, or choose another folder.`);
  }
  return { [Symbol.dispose]: () => file.close() };
}
