/** Files that belong together, replaced as one. */
import {
  explained,
  flushFolder,
  hold,
  removeIfPossible,
  removeTree,
  replaceFile,
  sweep,
  temporaryName,
  writeFlushed,
} from "./atomic_file.ts";
import { pathKind, readJsonObject } from "./byte_source.ts";

/** Where a folder's new files are written before any of them replaces an old one. Disposing of it discards what was not committed. */
export interface Staging extends Disposable {
  /** The folder to write them into, by {@link writeFlushed}. */
  readonly path: string;
  /**
   * Puts them in place. `key` is the file without which no program takes the folder for what it is: it goes first and comes
   * last, so that at every moment a reader finds the old files, the new ones, or nothing; and never some of each.
   *
   * @param isStale whether a file that is there and not among the new ones belonged to the old ones, and is removed
   */
  commit(key: string, isStale?: (name: string) => boolean): void;
}

/** A complete set of files on its way into place, and the remaining work. */
const waiting = ".new", planName = "plan.json";

/** Up to this size a file that stays as it is is noticed. */
const compared = 1 << 24;

/** Begins to replace files of `folder`, which is made where it is missing. */
export function stageFolder(folder: string): Staging {
  const path = `${folder}/${temporaryName()}`;
  sweep(folder);
  explained(folder, "written", () => Deno.mkdirSync(path, { recursive: true }));
  const held = openHeld(path);
  return {
    path,
    commit(key, isStale = () => false) {
      flushFolder(path);
      using _lock = openHeld(folder, true);
      finish(folder);
      const names = namesOf(path);
      const stale = namesOf(folder).filter((name) => isStale(name) && !names.includes(name));
      const changed = names.filter((name) => !isSame(`${path}/${name}`, `${folder}/${name}`));
      if (changed.length + stale.length < 2) {
        for (const name of changed) replaceFile(`${path}/${name}`, `${folder}/${name}`);
        for (const name of stale) removeTree(`${folder}/${name}`);
        return;
      }
      for (const name of names) if (name !== key && !changed.includes(name)) removeTree(`${path}/${name}`);
      writeFlushed(`${path}/${planName}`, JSON.stringify({ key, stale }));
      flushFolder(path);
      replaceFile(path, `${folder}/${waiting}`); // from here on the new files count
      finish(folder);
    },
    [Symbol.dispose]() {
      held?.close();
      removeIfPossible(path);
    },
  };
}

/**
 * Where a file of a folder is: in place, or still waiting for it where putting it there was cut short. What waits is whole.
 */
export function currentPath(folder: string, name: string): string {
  const there = `${folder}/${waiting}/${name}`;
  return pathKind(`${folder}/${waiting}/${planName}`) === "file" && pathKind(there) === "file"
    ? there
    : `${folder}/${name}`;
}

/** Puts what waits into place. Cut short at any point, it can be done again. */
function finish(folder: string): void {
  const from = `${folder}/${waiting}`;
  if (!isFolder(from) || pathKind(`${from}/${planName}`) !== "file") return removeTree(from); // all are in place, or none is whole
  const { key, stale } = readJsonObject(`${from}/${planName}`);
  const plain = (name: unknown): name is string => typeof name === "string" && /^[^/\\]+$/.test(name) && name !== "..";
  if (!plain(key) || !Array.isArray(stale) || !stale.every(plain)) return removeTree(from); // nothing that was written here
  // Gone already where the key is in place: then only the plan is left.
  if (pathKind(`${from}/${key}`) !== null) {
    for (const name of [key, ...stale]) removeTree(`${folder}/${name}`);
    flushFolder(folder);
    for (const name of [...namesOf(from).filter((name) => name !== key && name !== planName), key]) {
      replaceFile(`${from}/${name}`, `${folder}/${name}`);
    }
  }
  // Of no effect any more, and removed before the next.
  removeIfPossible(from);
}

function namesOf(folder: string): string[] {
  return explained(
    folder,
    "read",
    () => [...Deno.readDirSync(folder)].filter((e) => !e.isDirectory).map((e) => e.name),
  );
}

function isFolder(path: string): boolean {
  try {
    return Deno.lstatSync(path).isDirectory;
  } catch {
    return false;
  }
}

/** Whether two small files hold the same. */
function isSame(a: string, b: string): boolean {
  try {
    const [x, y] = [a, b].map((path) => Deno.lstatSync(path));
    if (!y.isFile || x.size !== y.size || x.size > compared) return false;
    const [left, right] = [a, b].map((path) => Deno.readFileSync(path));
    return left.every((byte, i) => byte === right[i]);
  } catch {
    return false;
  }
}

/** Opens a folder and holds it against other writers, or against being swept; null where the system opens no folders. */
function openHeld(folder: string, waiting = false): Deno.FsFile | null {
  if (Deno.build.os === "windows") return null;
  return explained(folder, "written", () => {
    const file = Deno.openSync(folder);
    hold(file, waiting);
    return file;
  });
}
