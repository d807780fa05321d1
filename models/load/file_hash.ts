/** What tells one file from another. Apart from the readers of files, which also run in pages: those have no such hash. */
import { createHash } from "node:crypto";
import { openBytes } from "./byte_source.ts";

/** The SHA-256 of a file in hexadecimal, as `sha256sum` prints it. Throws a {@link FileError} when it can't be read. */
export function sha256OfFile(path: string): string {
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
