/** Where a model may be: on the disk, on the hub, at a web address, or in memory. */
import { FileError } from "../../core/errors.ts";
import type { ModelConfig } from "./config.ts";
import type { HubOptions } from "./hub/hub.ts";
import { type ModelBytes, type ModelFiles, openModelBytes, openModelFiles, readFolderConfig } from "./model_files.ts";

/** A folder, a .gguf file, a name on the hub (`owner/name`), a `file:` or `https:` URL of a folder, or files in memory. */
export type ModelPlace = string | ModelBytes;

/**
 * Opens the files of the model at `place`; what is far away is brought first. `known` lists the architectures that the
 * caller can build; `check` refuses configurations that it can't, before any weight is brought.
 *
 * @throws {FileError} when they are missing, damaged, or of another architecture
 */
export async function openModel(
  place: ModelPlace,
  known: readonly string[],
  options: HubOptions,
  check: (config: ModelConfig) => void = () => {},
): Promise<ModelFiles> {
  if (typeof place !== "string") return openModelBytes(place, known);
  if (/^https?:/.test(place)) return openModelBytes(await fetchModel(place, options), known);
  if (place.startsWith("file:")) {
    const path = decodeURIComponent(new URL(place).pathname).replace(/^\/(?=[A-Za-z]:)/, ""); // /C:/… on Windows
    return openModelFiles(path, known);
  }
  const { download } = await import("./hub/hub.ts"); // needs the system's modules, which a browser lacks
  const accept = (folder: string) => check(readFolderConfig(folder, known));
  return openModelFiles(await download(place, { accept, ...options }), known);
}

/** The small model that ships with the library, beside its sources: its URL. */
export const lettersBase: string = new URL("../../assets/letters-base", import.meta.url).href;

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
    let response: Response;
    try {
      response = await fetch(`${name}/${file}`);
    } catch (error) {
      throw new FileError(
        `${name}/${file} can't be fetched (${(error as Error).message}): check the address and --allow-net.`,
      );
    }
    if (response.ok) files[file] = new Uint8Array(await response.arrayBuffer());
    else await response.body?.cancel();
    onDownload?.(received += files[file]?.length ?? 0, received);
  }
  return { name, files };
}
