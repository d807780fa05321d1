import { assert, assertEquals } from "@std/assert";
import { DeviceError } from "../../core/errors.ts";
import { chooseTiles } from "../device/webgpu/tuning.ts";
import type { Home } from "../device/webgpu/program.ts";
import type { Program } from "../ir/kernel.ts";
import { candidates, tune, type Tuneable } from "./tune.ts";
import { loadTiles, memoryStore, saveTiles, type TuneStore, userStore } from "./cache.ts";
import { representatives } from "./kernels.ts";
import { gpuTile, type TileConfig } from "../wgsl/tile.ts";
import { shapeClass, tileOf } from "../wgsl/tile_table.ts";

/** A device whose times a function makes up. */
const device = (time: (program: Program, tile: TileConfig) => number): Tuneable => ({
  time: (program, tile) => Promise.resolve(time(program, tile)),
});

/** A store that holds this text. */
const holding = (text: string): TuneStore => ({ place: "a file", load: () => text, save: () => {} });

/** What is reported when a store is asked for the adapter's tiles. */
function said(store: TuneStore): string[] {
  const sentences: string[] = [];
  assertEquals(loadTiles(store, "adapter", gpuTile, 0, (sentence) => sentences.push(sentence)), null);
  return sentences;
}

Deno.test("the fastest tile of each class is taken, and the default unless another is clearly faster", async () => {
  const table = await tune(device((_, { depth }) => depth === 0 ? 1 : 2), gpuTile);
  assertEquals(table.classes["contract NN large"].depth, 0);
  assertEquals(table.classes["row long"], undefined, "all rows took the same time");
  const same = await tune(device((_, tile) => tile.name === gpuTile.name ? 1 : 0.97), gpuTile);
  assertEquals(same.classes, {});
});

Deno.test("products are tried with subgroups where there are some, beside workgroup memory", () => {
  for (const name of ["contract NN large", "contract NT row", "contract TN thin"]) {
    const [without, having] = [0, 32].map((lanes) => candidates(name, gpuTile, lanes));
    assertEquals(without.filter(({ subgroups }) => subgroups > 0), []);
    assertEquals(having.filter(({ subgroups }) => subgroups === 0), without);
    assert(having.length > without.length, name);
  }
});

Deno.test("a tile that does not run is not taken", async () => {
  const table = await tune(device((_, { depth }) => depth === 0 ? Infinity : 2), gpuTile);
  assertEquals(table.classes, {});
});

Deno.test("every class that is tuned has one representative, which its own table serves", async () => {
  const classes = representatives().map((one) => one.shapeClass);
  assertEquals(new Set(classes).size, classes.length);
  const table = await tune(device((_, tile) => tile === gpuTile ? 2 : 1), gpuTile);
  for (const { shapeClass: name, program: { steps: [{ kernel }] } } of representatives()) {
    assertEquals(shapeClass(kernel), name);
    assertEquals(tileOf(table, kernel), candidates(name, gpuTile)[1], name);
  }
});

Deno.test("what was tuned is remembered for its adapter, beside others", async () => {
  const store = memoryStore();
  const table = await tune(device((_, { depth }) => depth === 0 ? 1 : 2), gpuTile);
  saveTiles(store, "other", { default: gpuTile, classes: {} }, 0, console.warn);
  saveTiles(store, "adapter", table, 0, console.warn);
  assertEquals(loadTiles(store, "adapter", gpuTile, 0, console.warn), table);
  assertEquals(loadTiles(store, "other", gpuTile, 0, console.warn)!.classes, {});
  assertEquals(loadTiles(store, "a third", gpuTile, 0, console.warn), null);
});

Deno.test("a corrupt or stale file is ignored with a sentence", () => {
  const end = ". They are measured again";
  const start = "The tuned tiles in a file are not used: ";
  assertEquals(said(holding("{")), [`${start}the file is not JSON${end}`]);
  assertEquals(said(holding("[]")), [`${start}the file names no adapters${end}`]);
  assertEquals(said(holding("null")), [`${start}the file names no adapters${end}`]);
  const stale = { adapters: { adapter: { measured: "1", classes: {} } } };
  assertEquals(said(holding(JSON.stringify(stale))), [`${start}they were measured by another version${end}`]);
  const store = memoryStore();
  saveTiles(store, "adapter", { default: gpuTile, classes: { map: { ...gpuTile, mapLanes: 7 } } }, 0, console.warn);
  assertEquals(said(store).map((text) => text.replace("memory", "a file")), [
    `${start}the tile of "map" is not one of the candidates${end}`,
  ]);
  const broken = {
    ...holding(""),
    load: () => {
      throw new Error("it is a folder");
    },
  };
  assertEquals(said(broken), [`${start}the file can't be read (it is a folder)${end}`]);
});

Deno.test("tiles that can't be saved are reported, and nothing more", () => {
  const sentences: string[] = [];
  const store = {
    ...memoryStore(),
    save: () => {
      throw new Error("the disk is full");
    },
  };
  saveTiles(store, "adapter", { default: gpuTile, classes: {} }, 0, (sentence) => sentences.push(sentence));
  assertEquals(sentences, ["The tuned tiles could not be kept in memory: the disk is full"]);
});

Deno.test("the user's file is read and written where the process may, and there is none where it may not", async () => {
  const folder = await Deno.makeTempDir();
  const permissions = (state: string) => ({ querySync: () => ({ state }) });
  const as = (state: string, home: string | null) =>
    ({
      ...Deno,
      build: { os: "linux" },
      permissions: permissions(state),
      env: { get: (name: string) => name === "HOME" ? home : undefined },
    }) as unknown as typeof Deno;
  const store = userStore(as("granted", folder))!;
  assertEquals(store.place, `${folder}/.cache/lowrank/tiles.json`);
  assertEquals(store.load(), null);
  store.save("{}");
  assertEquals(store.load(), "{}");
  assertEquals([...Deno.readDirSync(`${folder}/.cache/lowrank`)].map(({ name }) => name), ["tiles.json"]);
  assertEquals(userStore(as("prompt", folder)), null);
  assertEquals(userStore(as("granted", null)), null);
  assert(userStore(undefined) === null || userStore(undefined)!.place.endsWith("tiles.json"));
  await Deno.remove(folder, { recursive: true });
});

Deno.test("that kernels are timed is reported before, and an adapter that runs none of the tiles keeps its own", async () => {
  const sentences: string[] = [];
  const allocate = () => {
    assertEquals(sentences.length, 1, "said before the first is timed");
    throw new DeviceError("no memory");
  };
  const home = { memory: { allocate, free: () => {} }, failures: { check: () => Promise.resolve() } };
  const found = { adapter: { info: {} } as GPUAdapter, name: "an adapter", software: false };
  const warn = (sentence: string) => sentences.push(sentence);
  const { table, origin } = await chooseTiles(home as unknown as Home, found, 0, { store: memoryStore(), warn });
  assertEquals(table, { default: gpuTile, classes: {} });
  assert(sentences[0].startsWith("timing kernels on an adapter, once"), sentences[0]);
  assert(origin.startsWith("tiles tuned in"), origin);
});
