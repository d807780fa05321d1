/** The places a model can be loaded from: the disk, the hub, a web address, or memory. */
import { FileError } from "../../core/errors.ts";
import { longestText } from "./files/byte_source.ts";
import type { ModelConfig } from "./config.ts";
import type { HubOptions } from "./hub/hub.ts";
import { bodyOf, inTime } from "./hub/fetch.ts";
import { type ModelBytes, type ModelFiles, openModelBytes, openModelFiles, readFolderConfig } from "./model_files.ts";
import { checkMembers } from "../../core/options.ts";

/** A folder, a .gguf file, a name on the hub (`owner/name`), a `file:` or `https:` URL of a folder, or files in memory. */
export type ModelPlace = string | ModelBytes;

/**
 * Opens the files of the model at `place`; anything remote is downloaded first. `known` lists the architectures that the
 * caller can build; `check` refuses configurations that it can't, before any weight is downloaded.
 *
 * @throws {FileError} when they are missing, damaged, or of another architecture
 */
export async function openModel(
  place: ModelPlace,
  known: readonly string[],
  options: HubOptions,
  check: (config: ModelConfig) => void = () => {},
): Promise<ModelFiles> {
  if (typeof place !== "string") {
    checkMembers("loading a model", "a path, a name on the hub, or { name, files } in memory", place, [
      "name",
      "files",
    ]);
    return openModelBytes(place, known);
  }
  if (/^https?:/.test(place)) return openModelBytes(await fetchModel(place, options), known);
  if (place.startsWith("file:")) {
    const path = decodeURIComponent(new URL(place).pathname).replace(/^\/(?=[A-Za-z]:)/, ""); // /C:/… on Windows
    return openModelFiles(path, known);
  }
  const { download } = await import("./hub/hub.ts"); // needs the system's modules, which a browser lacks
  const accept = (folder: string) => check(readFolderConfig(folder, known));
  const { revision, onDownload, onWait } = options;
  const folder = await download(place, { accept: options.accept ?? accept, revision, onDownload, onWait });
  return { ...openModelFiles(folder, known), name: place };
}

/** The small model that ships with the library, beside its sources: its URL. */
export const lettersBase: string = new URL("../../assets/letters-base", import.meta.url).href;

/** The most bytes of weights that are fetched into memory, and the seconds in which something must come. */
const mostWeights = 2 ** 32, patience = 30;

/** The bytes at an address, or null where it has none. */
async function fetchBytes(url: string, most: number): Promise<Uint8Array | null> {
  const response = await inTime(patience, (signal) => fetch(url, { signal }));
  if (!response.ok) {
    await response.body?.cancel();
    return null;
  }
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for await (const part of bodyOf(response, patience)) {
    if ((size += part.length) > most) {
      throw new FileError(
        `${url} is more than ${most} bytes: it is not what its name says, or too large to fetch.`,
      );
    }
    parts.push(part as Uint8Array<ArrayBuffer>);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Fetches a model's folder into memory. Only what is not a must may be missing. */
async function fetchModel(url: string, { onDownload }: HubOptions): Promise<ModelBytes> {
  const name = url.replace(/\/+$/, "");
  const files: Record<string, Uint8Array> = {};
  let received = 0;
  const names = [
    ...["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
    ...["chat_template.jinja", "model.safetensors"],
  ];
  for (const file of names) {
    try {
      const bytes = await fetchBytes(`${name}/${file}`, file.endsWith(".safetensors") ? mostWeights : longestText);
      if (bytes !== null) files[file] = bytes;
    } catch (error) {
      if (error instanceof FileError) throw error;
      throw new FileError(
        `${name}/${file} can't be fetched (${(error as Error).message}): check the address and --allow-net.`,
      );
    }
    onDownload?.(received += files[file]?.length ?? 0, received);
  }
  return { name, files };
}
