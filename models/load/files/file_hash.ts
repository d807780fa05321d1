/** What tells one file from another. Apart from the readers of files, which also run in pages: those have no such hash. */
import { createHash } from "node:crypto";
import { openBytes } from "./byte_source.ts";

/** What was hashed, by path: weights of gigabytes are asked about several times. */
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

/** What changes where a file's bytes do; null where that is not known. */
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
