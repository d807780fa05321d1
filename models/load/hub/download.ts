/**
 * One file from the hub into the cache: goes on where an earlier try ended, and is named only once its hash is right. The
 * hub's own package keeps what came as it came: without its size or hash checked, from the start each time, and with two
 * processes writing one file.
 */
import { FileError } from "../../../core/errors.ts";
import {
  explained,
  folderOf,
  refuseLink,
  removeIfPossible,
  removeTree,
  replaceFile,
  temporaryName,
  writeAll,
} from "../files/atomic_file.ts";
import { pathKind } from "../files/byte_source.ts";
import { bodyOf, type HubAccess, hubFetch, HubStatusError, NetworkError, pause, tries } from "./fetch.ts";

/** A file as the hub lists it. `git` is the hash of its size and bytes, as git names a blob. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  readonly hash: string;
  readonly algorithm: "sha256" | "git";
}

/**
 * What the hub says of a file, checked: it decides over names on this disk, and over how much is written.
 *
 * @throws {FileError} for an invalid hash, an invalid size, or a name that leaves the repository's folder
 */
export function checkListed({ path, size, oid, lfs }: any): HubFile {
  const file = { path, size, hash: lfs?.oid ?? oid, algorithm: lfs ? "sha256" as const : "git" as const };
  const wrong = (what: string) =>
    new FileError(`The hub lists ${JSON.stringify(path)?.slice(0, 80)} with ${what}: nothing is taken from it.`);
  const plain = (name: string) => !/^\.{0,2}$|[\\:\p{Cc}]/u.test(name) && new TextEncoder().encode(name).length <= 240;
  if (typeof path !== "string" || !path.split("/").every(plain)) throw wrong("a name that no file here may have");
  if (!Number.isSafeInteger(size) || size < 0) throw wrong(`a size of ${JSON.stringify(size)}`);
  const hex = file.algorithm === "git" ? /^([0-9a-f]{40}|[0-9a-f]{64})$/ : /^[0-9a-f]{64}$/;
  if (!hex.test(String(file.hash))) {
    throw wrong(`the hash ${JSON.stringify(file.hash)?.slice(0, 80)}, which is not a hash`);
  }
  return file;
}

/**
 * Brings `url` to the path `blob` unless it is there. Bytes collect in `blob.incomplete`, which outlives a failure, and which
 * one process at a time writes.
 *
 * @throws {FileError} when size or hash differ from what the hub lists; the bytes are thrown away then
 */
export async function downloadFile(
  url: string,
  { path, size, hash, algorithm }: HubFile,
  blob: string,
  access: HubAccess,
  onBytes: (count: number) => void,
): Promise<void> {
  if (isOfSize(blob, size)) return onBytes(size);
  const partial = `${blob}.incomplete`;
  explained(blob, "written", () => Deno.mkdirSync(folderOf(blob), { recursive: true }));
  using file = await openAlone(partial, () => isOfSize(blob, size));
  if (file === null) return onBytes(size); // downloaded by another process meanwhile
  const { createHash } = await import("node:crypto"); // here, so that a bundle for browsers can hold this file
  const digest = createHash(algorithm === "git" && hash.length === 40 ? "sha1" : "sha256");
  if (algorithm === "git") digest.update(`blob ${size}\0`);
  let have = 0;
  const buffer = new Uint8Array(1 << 20);
  for (let count; (count = file.readSync(buffer)) !== null; have += count) digest.update(buffer.subarray(0, count));
  onBytes(have);
  for (let failures = 0; have < size;) {
    try {
      for await (const part of await openFrom(url, have, access)) {
        have += part.length;
        if (have > size) break; // whatever else comes is not wanted
        explained(partial, "written", () => writeAll(file, part));
        digest.update(part);
        onBytes(part.length);
        failures = 0;
      }
      if (have < size) throw new NetworkError("the connection ended early");
    } catch (error) {
      if (!(error instanceof NetworkError) || ++failures === tries) throw error;
      await pause(2 ** failures / 8);
    }
  }
  const found = digest.digest("hex");
  if (have !== size || found !== hash) {
    removeTree(partial);
    throw new FileError(
      `${path} came as ${have > size ? "more than " : ""}${Math.min(have, size)} bytes with the hash ` +
        `${found.slice(0, 12)}…, where the hub lists ${size} bytes with ${
          hash.slice(0, 12)
        }…: it was thrown away; run the ` +
        `command again.`,
    );
  }
  explained(blob, "written", () => file.syncSync());
  replaceFile(partial, blob);
}

/** Whether a file is there, and whole as far as its size tells. */
export function isOfSize(path: string, size: number): boolean {
  return pathKind(path) === "file" && Deno.statSync(path).size === size;
}

/** Opens a file that other processes may be writing, once they are done with it; null where it has become the whole one. */
async function openAlone(partial: string, isThere: () => boolean): Promise<Deno.FsFile | null> {
  while (true) {
    refuseLink(partial);
    const file = explained(partial, "written", () => Deno.openSync(partial, { read: true, write: true, create: true }));
    try {
      await file.lock(true);
    } catch {
      return file; // a disk without locks
    }
    // The other process may have renamed it, or thrown it away.
    const there = isThere();
    if (!there && pathKind(partial) === "file" && file.statSync().ino === Deno.statSync(partial).ino) return file;
    file.close();
    if (there) return null;
  }
}

/** The bytes of `url` from `start` on. */
async function openFrom(url: string, start: number, access: HubAccess): Promise<AsyncIterable<Uint8Array>> {
  const range: Record<string, string> = start > 0 ? { range: `bytes=${start}-` } : {};
  const response = await hubFetch(url, access, { "accept-encoding": "identity", ...range });
  if (!response.ok) {
    await response.body?.cancel();
    throw new HubStatusError(response.status);
  }
  const body = bodyOf(response, access.patience);
  return start > 0 && response.status !== 206 ? skipBytes(body, start) : body;
}

/** For a server that sends the whole file whatever was asked. */
async function* skipBytes(body: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  for await (const part of body) {
    const cut = Math.min(count, part.length);
    count -= cut;
    if (cut < part.length) yield part.subarray(cut);
  }
}

/**
 * Names a blob of the same repository `snapshots/COMMIT/path`: by a link, as Hugging Face's tools do; by a second name of the
 * same bytes where Deno was not allowed to make links (it wants --allow-write without a folder); else by a copy. It appears
 * whole, whatever was there.
 */
export function linkFile(repository: string, hash: string, snapshot: string, file: string): void {
  const path = `${snapshot}/${file}`;
  const folder = folderOf(path);
  const blob = `${repository}/blobs/${hash}`;
  const aside = `${folder}/${temporaryName()}`;
  explained(path, "written", () => Deno.mkdirSync(folder, { recursive: true }));
  const ways = [
    () => Deno.symlinkSync(`${"../".repeat(file.split("/").length + 1)}blobs/${hash}`, aside),
    () => Deno.linkSync(blob, aside),
  ];
  try {
    if (!ways.some(succeeds)) explained(path, "written", () => Deno.copyFileSync(blob, aside));
    replaceFile(aside, path);
  } catch (error) {
    removeIfPossible(aside);
    throw error;
  }
}

function succeeds(action: () => void): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}
