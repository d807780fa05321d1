/** One file from the hub into the cache: goes on where an earlier try ended, and is named only once its hash is right. */
import { FileError } from "../../core/errors.ts";
import { folderOf, replaceFile } from "./atomic_file.ts";
import { pathKind } from "./byte_source.ts";

/** A file as the hub lists it. `git` is the SHA-1 of the size and the bytes, as git names a blob. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  readonly hash: string;
  readonly algorithm: "sha256" | "git";
}

/** The hub's refusal of one request. */
export class HubStatusError extends Error {
  constructor(readonly statusCode: number) {
    super(`the hub answered with status ${statusCode}`);
  }
}

/** How often what the network breaks is tried again, each time after twice the wait. */
const tries = 5;

/**
 * Brings `url` to the path `blob` unless it is there. Bytes collect in `blob.incomplete`, which outlives a failure.
 *
 * @throws {FileError} when size or hash differ from what the hub lists; the bytes are thrown away then
 */
export async function download(
  url: string,
  { path, size, hash, algorithm }: HubFile,
  blob: string,
  token: string | undefined,
  onBytes: (count: number) => void,
): Promise<void> {
  if (pathKind(blob) === "file") return onBytes(size);
  const partial = `${blob}.incomplete`;
  Deno.mkdirSync(folderOf(blob), { recursive: true });
  using file = Deno.openSync(partial, { read: true, write: true, create: true });
  const { createHash } = await import("node:crypto"); // here, so that a bundle for browsers can hold this file
  const digest = createHash(algorithm === "git" ? "sha1" : "sha256");
  if (algorithm === "git") digest.update(`blob ${size}\0`);
  let have = 0;
  const buffer = new Uint8Array(1 << 20);
  for (let count; (count = file.readSync(buffer)) !== null; have += count) digest.update(buffer.subarray(0, count));
  onBytes(have);
  for (let failures = 0; have < size;) {
    try {
      for await (const part of await openFrom(url, have, token)) {
        for (let done = 0; done < part.length;) done += file.writeSync(part.subarray(done));
        digest.update(part);
        have += part.length;
        onBytes(part.length);
        failures = 0;
      }
      if (have < size) throw new TypeError("the connection ended early");
    } catch (error) {
      if (!isNetworkError(error) || ++failures === tries) throw error;
      await pause(2 ** failures / 8);
    }
  }
  const found = digest.digest("hex");
  if (have !== size || found !== hash) {
    Deno.removeSync(partial);
    throw new FileError(
      `${path} came as ${have} bytes with the hash ${found.slice(0, 12)}…, where the hub lists ${size} bytes with ` +
        `${hash.slice(0, 12)}…: it was thrown away; run the command again.`,
    );
  }
  file.syncSync();
  replaceFile(partial, blob);
}

/** The bytes of `url` from `start` on. */
async function openFrom(url: string, start: number, token?: string): Promise<ReadableStream<Uint8Array>> {
  const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {};
  if (start > 0) headers.range = `bytes=${start}-`;
  const response = await patientFetch(url, { headers });
  if (!response.ok) {
    await response.body?.cancel();
    throw new HubStatusError(response.status);
  }
  if (start > 0 && response.status !== 206) return skipBytes(response.body!, start);
  return response.body!;
}

/** For a server that sends the whole file whatever was asked. */
function skipBytes(body: ReadableStream<Uint8Array>, count: number): ReadableStream<Uint8Array> {
  return body.pipeThrough(
    new TransformStream({
      transform(part: Uint8Array, controller) {
        const cut = Math.min(count, part.length);
        count -= cut;
        if (cut < part.length) controller.enqueue(part.subarray(cut));
      },
    }),
  );
}

/** A link at `snapshots/COMMIT/path` to a blob of the same repository; a copy where the system has no links. */
export function linkFile(repository: string, hash: string, snapshot: string, file: string): void {
  const path = `${snapshot}/${file}`;
  Deno.mkdirSync(folderOf(path), { recursive: true });
  try {
    const up = "../".repeat(file.split("/").length + 1);
    Deno.symlinkSync(`${up}blobs/${hash}`, path);
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return;
    Deno.copyFileSync(`${repository}/blobs/${hash}`, path); // Windows without developer mode
  }
}

/** `fetch` that waits as long as a busy server asks, some times over. */
export const patientFetch: typeof fetch = async (input, init) => {
  for (let attempt = 1;; attempt++) {
    const response = await fetch(input, init);
    if (![429, 503].includes(response.status) || attempt === tries) return response;
    await response.body?.cancel();
    const asked = response.headers.get("retry-after");
    await pause(asked === null ? 2 ** attempt / 2 : Number(asked) || 0);
  }
};

/** Whether the network failed, not the hub, the disk or this program. */
export function isNetworkError(error: unknown): boolean {
  return error instanceof TypeError || error instanceof Deno.errors.Http ||
    error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.UnexpectedEof;
}

const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
