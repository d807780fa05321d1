import { killRuns } from "./kill_runs.ts";

// `deno task test:kill` asks for 200.
const kills = Number(Deno.args[0] ?? 3);

Deno.test({
  name: "a run that is killed at random moments loses no checkpoint and ends as if nothing had happened",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const { kills: killed, finished, unfinished } = await killRuns(folder, kills);
      console.log(
        `killed ${killed} times, ${unfinished} of them while a checkpoint was written or removed; ` +
          `${finished} runs came to their end, bit for bit as the undisturbed one`,
      );
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
