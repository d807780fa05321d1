/** Hashes of files. Apart from the file readers, which also run in web pages, where this hash is not available. */
import { createHash } from "node:crypto";
import { openBytes } from "./byte_source.ts";

/** Known hashes, by path: gigabytes of weights are asked about several times. */
const known = new Map<string, { readonly changed: string; readonly hash: string }>();

/** The SHA-256 of a file in hexadecimal, as `sha256sum` prints it. Throws a {@link FileError} when it can't be read. */
export function sha256OfFile(path: string): string {
  const changed = changeOf(path);
  const before = known.get(path);
  if (before !== undefined && before.changed === changed) return before.hash;
  const hash = read(path);
  if (changed !== null) known.set(path, { changed, hash });
  return hash;
}

/** A value that changes when a file's bytes do; null where that is not known. */
function changeOf(path: string): string | null {
  try {
    const { size, mtime, ctime, ino } = Deno.statSync(path);
    return mtime === null ? null : [size, +mtime, ctime && +ctime, ino].join(" ");
  } catch {
    return null; // opening it says why
  }
}

function read(path: string): string {
  using source = openBytes(path);
  const hash = createHash("sha256");
  const piece = new Uint8Array(1 << 22);
  for (let at = 0; at < source.size; at += piece.length) {
    const bytes = piece.subarray(0, Math.min(piece.length, source.size - at));
    source.read(at, bytes);
    hash.update(bytes);
  }
  return hash.digest("hex");
}
