/** What was measured, remembered for each adapter: in a file of the user's cache folder, where there is one that may be used. */
import { representatives } from "./kernels.ts";
import { candidates } from "./tune.ts";
import { emitWgsl } from "../wgsl/emit.ts";
import type { TileConfig } from "../wgsl/tile.ts";
import type { TileTable } from "../wgsl/tile_table.ts";

/** Where tuned tiles are kept between runs. */
export interface TuneStore {
  /** For a person: the file's path. */
  readonly place: string;
  /** What was saved, or null where nothing was. */
  load(): string | null;
  save(text: string): void;
}

/** A store that lasts as long as it is held: give it to several devices, and the first is tuned for all. */
export function memoryStore(): TuneStore {
  let kept: string | null = null;
  return {
    place: "memory",
    load: () => kept,
    save: (text) => void (kept = text),
  };
}

/** `lowrank/tiles.json` in the user's cache folder, or null where there is none or the process may not read and write it. */
export function userStore(
  deno: typeof Deno | undefined = (globalThis as { Deno?: typeof Deno }).Deno,
): TuneStore | null {
  const folder = deno && cacheFolder(deno);
  if (!deno || !folder) return null;
  const [own, path] = [`${folder}/lowrank`, `${folder}/lowrank/tiles.json`];
  const may = (name: "read" | "write") => deno.permissions.querySync({ name, path: own }).state === "granted";
  if (!may("read") || !may("write")) return null;
  return {
    place: path,
    load() {
      try {
        return deno.readTextFileSync(path);
      } catch (error) {
        if (error instanceof deno.errors.NotFound) return null;
        throw error;
      }
    },
    save(text) {
      // Written aside and moved: a run that ends in between leaves no half of a file.
      deno.mkdirSync(own, { recursive: true });
      const aside = `${path}.${deno.pid}`;
      deno.writeTextFileSync(aside, text);
      deno.renameSync(aside, path);
    },
  };
}

/** The user's cache folder by the habits of the system, as far as the environment may be read. */
function cacheFolder(deno: typeof Deno): string | null {
  const value = (variable: string) =>
    deno.permissions.querySync({ name: "env", variable }).state === "granted" ? deno.env.get(variable) || null : null;
  const within = (folder: string | null, path: string) => folder && `${folder}/${path}`;
  switch (deno.build.os) {
    case "windows":
      return value("LOCALAPPDATA");
    case "darwin":
      return within(value("HOME"), "Library/Caches");
    default:
      return value("XDG_CACHE_HOME") ?? within(value("HOME"), ".cache");
  }
}

/** What the file holds: for each adapter what the tiles were measured on and, of each class, the one that was taken. */
interface Saved {
  readonly adapters: Record<string, { readonly measured: string; readonly classes: Record<string, TileConfig> }>;
}

/** What a measurement depends on but the adapter: other shaders or other candidates make it stale. */
function fingerprint(base: TileConfig, lanes: number): string {
  const measured = representatives().map(({ shapeClass, program: { steps: [{ kernel }] } }) => [
    shapeClass,
    candidates(shapeClass, base, lanes),
    emitWgsl(kernel, base).text,
  ]);
  let hash = 0x811c9dc5;
  for (const letter of JSON.stringify(measured)) hash = Math.imul(hash ^ letter.charCodeAt(0), 0x01000193);
  return (hash >>> 0).toString(16);
}

/** The table that was saved for an adapter whose subgroups have `lanes` lanes, or null: then `warn` gets the reason, unless nothing was saved. */
export function loadTiles(
  store: TuneStore,
  adapter: string,
  base: TileConfig,
  lanes: number,
  warn: (message: string) => void,
): TileTable | null {
  const ignored = (why: string) => {
    warn(`The tuned tiles in ${store.place} are not used: ${why}. They are measured again`);
    return null;
  };
  let text: string | null;
  try {
    text = store.load();
  } catch (error) {
    return ignored(`the file can't be read (${error instanceof Error ? error.message : error})`);
  }
  if (text === null) return null;
  let saved: Partial<Saved> | null;
  try {
    saved = JSON.parse(text);
  } catch {
    return ignored("the file is not JSON");
  }
  const found = saved?.adapters?.[adapter];
  if (typeof saved?.adapters !== "object") return ignored("the file names no adapters");
  if (found === undefined) return null;
  if (found.measured !== fingerprint(base, lanes)) return ignored("they were measured by another version");
  for (const [shapeClass, tile] of Object.entries(found.classes ?? {})) {
    const known = candidates(shapeClass, base, lanes).some((one) => JSON.stringify(one) === JSON.stringify(tile));
    if (!known) return ignored(`the tile of "${shapeClass}" is not one of the candidates`);
  }
  return { default: base, classes: found.classes ?? {} };
}

/** Saves an adapter's table beside those of other adapters; `warn` gets the reason if that fails. */
export function saveTiles(
  store: TuneStore,
  adapter: string,
  { default: base, classes }: TileTable,
  lanes: number,
  warn: (message: string) => void,
): void {
  let others: Saved["adapters"] = {};
  try {
    others = JSON.parse(store.load() ?? "{}").adapters ?? {};
  } catch { /* What can't be read is overwritten: `loadTiles` has reported it. */ }
  const adapters = { ...others, [adapter]: { measured: fingerprint(base, lanes), classes } };
  try {
    store.save(`${JSON.stringify({ adapters }, null, 2)}\n`);
  } catch (error) {
    warn(`The tuned tiles could not be kept in ${store.place}: ${error instanceof Error ? error.message : error}`);
  }
}
