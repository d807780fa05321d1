/** Every call of the system that a save makes fails once: it is reported, the run continues, and nothing half-written is left. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { checkpointStore } from "../../train/checkpoint/checkpoint.ts";
import { attackFolder, isInstalled, trainArgs } from "./command.ts";
import { startHub, weights } from "./hub_server.ts";
import { calls, callsOn } from "./traced_calls.ts";

const ignore = Deno.build.os !== "linux" || !isInstalled("strace");

const errors = ["EDQUOT", "EIO", "ESTALE", "EMFILE", "ENOSPC", "EROFS", "EACCES"];
const steps = ["--steps", "3", "--save-every", "1", "--keep", "1", "--overwrite"];

Deno.test(
  { name: "every call of a save fails once", ignore },
  async (t) => {
    await using place = await attackFolder();
    const run = trainArgs("run", ...steps);
    const log = place.at("log");
    const traced = `strace -f -y -s 0 -o ${log} -e trace=${calls}`;
    const undisturbed = await place.lowrank(run, { wrap: traced });
    assertEquals(undisturbed.code, 0, undisturbed.err);
    const all = callsOn(Deno.realPathSync(place.at("run")), Deno.readTextFileSync(log));
    // `test:kill` has one fail for each file, this one for each call, in checkpoints and beside them.
    const kinds = Map.groupBy(
      all,
      ({ role }) => Deno.args.length > 0 ? role : role.replace(/ (\/checkpoints)?.*/, " $1"),
    );
    const chosen = [...kinds.values()].map((some) => some[some.length >> 1]);
    assert(chosen.length > 10);
    let met = 0;
    for (const [i, { name, nth, role }] of chosen.entries()) {
      const error = errors[i % errors.length];
      await t.step(`${role}: ${error}`, async () => {
        const { code, err, injected } = await place.lowrank(run, {
          inject: [`inject=${name}:error=${error}:when=${nth}`],
        });
        // The how-manieth call is not always ours: Deno's own threads wake each other, and it reads packages.
        if (!injected.some((line) => line.includes(place.folder))) return;
        if (err.includes("Deno has panicked") || injected.some((line) => line.includes("/npm/"))) return;
        met++;
        assert(code === 0 || code === 1, err);
        assertEquals(err.match(/bug in lowrank|\n +at /), null, err);
        if (code === 1) assertMatch(err, /^error: .*\.$/m);
        else assert(readAdapter(place.at("run")).tensors.length > 0);
        if (pathKind(place.at("run/checkpoints")) === null) return; // it did not begin
        const names = [...Deno.readDirSync(place.at("run/checkpoints"))].map(({ name }) => name).filter((n) =>
          n[0] !== "."
        );
        assert(code === 1 || names.length > 0);
        for (const name of names) {
          const { identity } = JSON.parse(Deno.readTextFileSync(place.at(`run/checkpoints/${name}/run.json`)));
          assert(checkpointStore({ folder: place.at("run/checkpoints"), identity }).read(Number(name.slice(5))));
        }
      });
    }
    assert(met > chosen.length / 2, `${met} of ${chosen.length} calls failed`);
    const after = await place.lowrank(run);
    assertEquals(after.code, 0, after.err);
  },
);

Deno.test({ name: "every call of a download fails once", ignore }, async (t) => {
  await using place = await attackFolder();
  await using hub = startHub();
  const around = {
    env: hub.variables,
    permissions: ["--allow-net=127.0.0.1", "--allow-env", `--allow-write=${hub.cache}`],
  };
  const inspect = ["inspect", "owner/name"];
  const log = place.at("log");
  await place.lowrank(inspect, { ...around, wrap: `strace -f -y -s 0 -o ${log} -e trace=${[...calls, "link"]}` });
  const kinds = Map.groupBy(callsOn(Deno.realPathSync(hub.cache), Deno.readTextFileSync(log)), ({ role }) => role);
  assert(kinds.size > 10);
  let met = 0;
  for (const [i, [{ name, nth, role }]] of [...kinds.values()].entries()) {
    const error = errors[i % errors.length];
    await t.step(`${role}: ${error}`, async () => {
      for (const entry of Deno.readDirSync(hub.cache)) {
        Deno.removeSync(join(hub.cache, entry.name), { recursive: true });
      }
      const { code, err, injected } = await place.lowrank(inspect, {
        ...around,
        inject: [`inject=${name}:error=${error}:when=${nth}`],
      });
      if (!injected.some((line) => line.includes(hub.cache)) || err.includes("Deno has panicked")) return;
      met++;
      assertEquals(code, 1, err); // these weights are none
      assertMatch(err, /^error: .*\.\n$/m);
      const folder = await hub.download();
      assertEquals(Deno.readFileSync(join(folder, "model.safetensors")), weights);
      assertEquals(JSON.parse(Deno.readTextFileSync(join(folder, "config.json"))), { model_type: "gpt2" });
    });
  }
  assert(met > kinds.size / 2, `${met} of ${kinds.size} calls failed`);
});
