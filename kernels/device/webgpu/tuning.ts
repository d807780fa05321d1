/** How a WebGPU device comes by its tiles: given, remembered, measured now, or the default of its kind. */
import { DeviceError } from "../../../core/errors.ts";
import { warn as toStderr } from "../../../core/host/output.ts";
import { byteSize } from "../../../core/dtype.ts";
import type { Program } from "../../ir/kernel.ts";
import { tune, type Tuneable } from "../../tune/tune.ts";
import { loadTiles, memoryStore, saveTiles, type TuneStore, userStore } from "../../tune/cache.ts";
import { defaultTile, type TileConfig } from "../../wgsl/tile.ts";
import type { TileTable } from "../../wgsl/tile_table.ts";
import type { FoundAdapter } from "./adapter.ts";
import type { WebGpuBuffer } from "./memory.ts";
import { type Home, WebGpuProgram } from "./program.ts";

/** How kernels are tiled, and whether that is measured. */
export interface TileOptions {
  /** How all kernels are tiled, or each class of them: nothing is measured, so that runs can be repeated to the bit. */
  readonly tile?: TileConfig | TileTable;
  /**
   * Whether the tiles are chosen by timing a few on this adapter, which takes some seconds the first time. By default they
   * are on a GPU and not on a software adapter. Without, runs can be repeated to the bit on every adapter of its kind.
   */
  readonly tune?: boolean;
  /** Where measured tiles are kept; by default a file in the user's cache folder, or nowhere if that may not be used. */
  readonly store?: TuneStore;
  /** Called with a sentence: that kernels are being timed, or that what was kept can't be used. By default it is printed. */
  readonly warn?: (message: string) => void;
}

/** The tiles of a device, and a line on where they come from. */
export interface Tiles {
  readonly table: TileTable;
  readonly origin: string;
}

/** Chooses the tiles of the device that `home` has opened on an adapter, whose subgroups have `lanes` lanes. */
export async function chooseTiles(
  home: Home,
  found: FoundAdapter,
  lanes: number,
  options: TileOptions,
): Promise<Tiles> {
  const base = defaultTile(found.software, lanes);
  const { tile, tune: wanted = !found.software, warn = toStderr } = options;
  if (tile) {
    return "default" in tile
      ? { table: tile, origin: "a fixed table of tiles" }
      : { table: { default: tile, classes: {} }, origin: `the ${tile.name} tile` };
  }
  if (!wanted) return { table: { default: base, classes: {} }, origin: `the ${base.name} tile, not tuned` };
  const store = options.store ?? userStore() ?? memoryStore();
  const key = adapterKey(found);
  const known = loadTiles(store, key, base, lanes, warn);
  if (known) return { table: known, origin: `tiles tuned before, from ${store.place}` };
  warn(`timing kernels on ${found.name}, once: some seconds; "tune: false" (--no-tune) takes usual ones instead`);
  const began = performance.now();
  const table = await tune(new Stopwatch(home), base, lanes);
  saveTiles(store, key, table, lanes, warn);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  return { table, origin: `tiles tuned in ${seconds} s, kept in ${store.place}` };
}

/** What tells one adapter, and one driver of it, from another. */
export function adapterKey({ adapter: { info }, name }: FoundAdapter): string {
  return [info.vendor, info.architecture, info.device, name].filter(Boolean).join(" | ");
}

/** Runs of which the fastest counts, and launches that share a wait where the device has no clock. */
const [runs, launches] = [3, 16];

/** Times single kernels on a device, on buffers of its own that hold zeros. */
export class Stopwatch implements Tuneable {
  constructor(readonly home: Home) {}

  async time(program: Program, tile: TileConfig): Promise<number> {
    const { memory, failures } = this.home;
    const buffers: WebGpuBuffer[] = [];
    try {
      for (const { dtype, size } of program.arguments) buffers.push(memory.allocate(size * byteSize[dtype]));
      const executable = new WebGpuProgram({ ...this.home, tileFor: () => tile }, program);
      executable.run(buffers, []);
      let least = Infinity;
      for (let run = 0; run < runs; run++) least = Math.min(least, await this.#once(executable, buffers));
      executable.free();
      return least;
    } catch (error) {
      // A tile that this adapter can't run can't be chosen; a lost device is reported by its next use.
      if (error instanceof DeviceError) return Infinity;
      throw error;
    } finally {
      await failures.check().catch(() => {});
      buffers.forEach((buffer) => memory.free(buffer));
    }
  }

  async #once(executable: WebGpuProgram, buffers: readonly WebGpuBuffer[]): Promise<number> {
    if (this.home.gpu.features.has("timestamp-query")) return (await executable.time(buffers, []))[0];
    const began = performance.now();
    for (let i = 0; i < launches; i++) executable.run(buffers, []);
    await this.home.gpu.queue.onSubmittedWorkDone();
    await this.home.failures.check();
    return (performance.now() - began) / launches;
  }
}
