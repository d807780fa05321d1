import { createHash } from "node:crypto";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { FileError, OptionError } from "../../core/errors.ts";
import { writeFlushed } from "../../models/load/files/atomic_file.ts";
import { type CheckpointOptions, checkpointStore, differencesOf } from "./checkpoint.ts";
import type { Snapshot } from "./snapshot.ts";
import { inFolder } from "../../tests/folder.ts";

function snapshotOf(step: number): Snapshot {
  return {
    step,
    tokens: 10 * step,
    cursor: { position: step, used: 0, open: [[1, 2], [3]] },
    tensors: new Map([
      ["params.a", { shape: [2], dtype: "f32", data: Float32Array.of(step, 0.1) }],
      ["key", { shape: [2], dtype: "u32", data: Uint32Array.of(1, 2 ** 32 - 1) }],
    ]),
    watch: { mean: 0.1 + 0.2, since: [1, null] },
  };
}

const identity = { data: { rows: 3, sha256: "ab" }, lr: 0.01 };

/** The user id that this process writes files as. */
function ownerOfNewFiles(): number | null {
  const file = Deno.makeTempFileSync();
  const { uid } = Deno.statSync(file);
  Deno.removeSync(file);
  return uid;
}

const open = (folder: string, options: Partial<CheckpointOptions> = {}) =>
  checkpointStore({ folder: `${folder}/checkpoints`, identity, ...options });

Deno.test("a checkpoint is read as it was saved", () =>
  inFolder(async (folder) => {
    assertEquals(open(folder).newest(), null);
    await open(folder).save(snapshotOf(7), null, null);
    const { snapshot, notes } = open(folder).newest()!;
    assertEquals({ ...snapshot }, { ...snapshotOf(7), best: undefined });
    assertEquals(notes, []);
  }));

Deno.test("the last ones and the best stay", () =>
  inFolder(async (folder) => {
    const store = open(folder, { keep: 2 });
    for (const step of [1, 2, 3, 4, 5]) await store.save(snapshotOf(step), null, step < 2 ? null : 2);
    assertEquals(store.steps(), [2, 4, 5]);
    assertEquals(store.newest()!.snapshot.best, snapshotOf(2).tensors);
    await store.save(snapshotOf(6), null, 6);
    assertEquals(store.steps(), [5, 6]);
    assertEquals(store.newest()!.snapshot.best, snapshotOf(6).tensors);
    store.clear();
    assertEquals(store.steps(), []);
  }));

Deno.test("a damaged checkpoint is passed over, with a sentence; a newer save replaces it", () =>
  inFolder(async (folder) => {
    const store = open(folder);
    const at = (step: number, name: string) => `${folder}/checkpoints/step-0000000${step}/${name}`;
    const damages: ((step: number) => Promise<void> | void)[] = [
      async (step) => {
        const bytes = await Deno.readFile(at(step, "state.safetensors"));
        bytes[bytes.length - 1] ^= 1;
        await Deno.writeFile(at(step, "state.safetensors"), bytes);
      },
      (step) => Deno.truncate(at(step, "state.safetensors"), 20),
      (step) => Deno.remove(at(step, "state.safetensors")),
      (step) => Deno.remove(at(step, "run.json")),
      (step) => Deno.writeTextFile(at(step, "run.json"), "{"),
      async (step) => {
        const text = await Deno.readTextFile(at(step, "run.json"));
        await Deno.writeTextFile(at(step, "run.json"), text.replace('"tokens": 20', '"tokens": 21'));
      },
    ];
    for (const damage of damages) {
      await store.save(snapshotOf(1), null, null);
      await store.save(snapshotOf(2), null, null);
      await damage(2);
      const { snapshot, notes } = store.newest()!;
      assertEquals([snapshot.step, notes.length], [1, 1]);
      assertStringIncludes(notes[0], "checkpoints/step-00000002 is damaged");
    }
    await store.save(snapshotOf(2), null, null);
    assertEquals(store.newest()!.snapshot.step, 2);
    for (const step of [1, 2]) await damages[0](step);
    assertThrows(() => store.newest(), FileError, "is complete. The checkpoint");
  }));

Deno.test("another base, other data or options are refused with what differs", () =>
  inFolder(async (folder) => {
    await open(folder).save(snapshotOf(1), null, null);
    assertThrows(
      () => open(folder, { identity: { data: { rows: 4, sha256: "ab" }, lr: 0.01, seed: 1 } }).newest(),
      OptionError,
      "can't be resumed with other values: data rows was 3 and is 4; seed was not given and is 1.",
    );
    assertEquals(differencesOf({ a: [1, 2], b: undefined }, { a: [1, 2] }), []);
  }));

Deno.test("a checkpoint of an earlier version is refused with what can be done", () =>
  inFolder(async (folder) => {
    await open(folder).save(snapshotOf(1), null, null);
    const path = `${folder}/checkpoints/step-00000001/run.json`;
    const { hash: _, ...run } = { ...JSON.parse(await Deno.readTextFile(path)), format: 1 };
    const hash = createHash("sha256").update(JSON.stringify(run)).digest("hex");
    await Deno.writeTextFile(path, JSON.stringify({ ...run, hash }));
    assertThrows(
      () => open(folder).newest(),
      OptionError,
      "was written by an earlier version, which made other batches",
    );
  }));

Deno.test("a save that fails at any write leaves what was there, and nothing half", () =>
  inFolder(async (folder) => {
    await open(folder).save(snapshotOf(1), null, null);
    for (let failing = 0; failing < 3; failing++) {
      let writes = 0;
      const write: CheckpointOptions["write"] = (path, contents) => {
        if (writes++ !== failing) return writeFlushed(path, contents);
        writeFlushed(path, typeof contents === "string" ? contents.slice(0, 5) : [[...contents][0].subarray(0, 5)]); // the disk is full after five bytes
        throw new FileError(`${path} can't be written: the disk is full; make room.`);
      };
      const writeMore = (part: string) => Promise.resolve(write!(`${part}/adapter.bin`, [new Uint8Array(9)]));
      const store = open(folder, { write, writeMore });
      await assertRejects(() => store.save(snapshotOf(2), null, null), FileError, "the disk is full");
      assertEquals(writes, failing + 1);
      assertEquals([...Deno.readDirSync(`${folder}/checkpoints`)].map(({ name }) => name), ["step-00000001"]);
      assertEquals(open(folder).newest()!.snapshot.step, 1);
    }
  }));

Deno.test("what a killed run left unfinished is swept away, and is never taken for a checkpoint", () =>
  inFolder(async (folder) => {
    await open(folder).save(snapshotOf(1), null, null);
    for (const name of [".step-00000002.part", ".step-00000000.gone"]) {
      await Deno.mkdir(`${folder}/checkpoints/${name}`);
      await Deno.writeTextFile(`${folder}/checkpoints/${name}/run.json`, "{");
    }
    const store = open(folder);
    assertEquals(store.steps(), [1]);
    assertEquals([...Deno.readDirSync(`${folder}/checkpoints`)].length, 1);
  }));

Deno.test({
  name: "a folder that became read-only is reported, and what was saved stays",
  // Whoever may write everywhere is not stopped by permissions.
  ignore: Deno.build.os === "windows" || ownerOfNewFiles() === 0,
  fn: () =>
    inFolder(async (folder) => {
      await open(folder).save(snapshotOf(1), null, null);
      await Deno.chmod(`${folder}/checkpoints`, 0o555);
      try {
        await assertRejects(
          () => open(folder).save(snapshotOf(2), null, null),
          FileError,
          "the system does not allow it",
        );
        assert(open(folder).newest()!.snapshot.step === 1);
      } finally {
        await Deno.chmod(`${folder}/checkpoints`, 0o755);
      }
    }),
});
