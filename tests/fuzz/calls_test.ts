/**
 * Calls of the system that fail, drawn at random, several in one run that saves: it is one sentence or goes on, and what it
 * leaves is whole. `deno task test:fuzz` draws anew each time, one in 250 of its number; without a number a few, always the
 * same. Skipped where strace is missing.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { readAdapter } from "../../formats/peft/files.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { checkpointStore } from "../../train/checkpoint/checkpoint.ts";
import { attackFolder, isInstalled, trainArgs } from "../attack/command.ts";
import { calls, callsOn } from "../attack/traced_calls.ts";

const wanted = Deno.args[0] === undefined ? null : Number(Deno.args[0]);
const runs = wanted === null ? 4 : Math.ceil(wanted / 250);

const ignore = Deno.build.os !== "linux" || !isInstalled("strace");
if (ignore) console.log("calls of the system are not made to fail here: that needs Linux and strace");

const errors = ["EDQUOT", "EIO", "ESTALE", "EMFILE", "ENOSPC", "EROFS", "EACCES", "EPERM", "ENOENT"];
/** Which of the calls fail, as parts of the list of them; how, and whether from then on. */
const faults = fc.array(
  fc.record({
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    error: fc.constantFrom(...errors),
    on: fc.constantFrom("", "", "", "+", "+2", "+7"),
  }),
  { minLength: 1, maxLength: 3 },
);

Deno.test({ name: `a run whose calls fail at random: whole or a sentence for ${runs} runs`, ignore }, async () => {
  await using place = await attackFolder();
  const run = trainArgs("run", "--steps", "3", "--save-every", "1", "--keep", "1", "--overwrite");
  const log = place.at("log");
  const first = await place.lowrank(run, { wrap: `strace -f -y -s 0 -o ${log} -e trace=${calls}` });
  assertEquals(first.code, 0, first.err);
  const all = callsOn(Deno.realPathSync(place.at("run")), Deno.readTextFileSync(log));
  assert(all.length > 20);
  await fc.assert(
    fc.asyncProperty(faults, async (faults) => {
      const chosen = faults.map(({ at, ...how }) => ({ ...all[Math.floor(at * all.length)], ...how }));
      const inject = [...new Map(chosen.map((one) => [one.name, one])).values()].map(({ name, nth, error, on }) =>
        `inject=${name}:error=${error}:when=${nth}${on}`
      );
      const { code, err, injected } = await place.lowrank(run, { inject });
      // The how-manieth call is not always ours: what Deno reads for itself may fail, too.
      if (err.includes("Deno has panicked")) return;
      if (code === 70 && injected.some((line) => !line.includes(place.folder))) return;
      assert(code === 0 || code === 1, err);
      assertEquals(err.match(/bug in lowrank|\n +at /), null, err);
      if (code === 1) assertMatch(err, /^error: .*\.$/m);
      else assert(readAdapter(place.at("run")).tensors.length > 0);
      if (pathKind(place.at("run/checkpoints")) === null) return; // it did not begin
      for (const { name } of Deno.readDirSync(place.at("run/checkpoints"))) {
        if (!/^step-\d+$/.test(name)) continue;
        const { identity } = JSON.parse(Deno.readTextFileSync(place.at(`run/checkpoints/${name}/run.json`)));
        assert(checkpointStore({ folder: place.at("run/checkpoints"), identity }).read(Number(name.slice(5))));
      }
    }),
    wanted === null ? { numRuns: runs, seed: 1 } : { numRuns: runs },
  );
  const after = await place.lowrank(run);
  assertEquals(after.code, 0, after.err);
});
