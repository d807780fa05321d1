/** In place of `node:crypto` in the bundle for browsers: what a page does needs no hashes of files. */

/** Says so where one is asked for after all. */
export function createHash(): never {
  throw new Error("A page can't hash files: do this from Deno.");
}
