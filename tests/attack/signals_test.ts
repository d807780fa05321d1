/** What asks a run to end reaches it by whatever started it; what was started to outlive its terminal does. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { readAdapter } from "../../formats/peft/files.ts";
import { attackFolder, denoCommand, type Ended, heard, trainArgs } from "./command.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const ignore = Deno.build.os !== "linux";

/** The ways to start a run; each ends in one process that the test can signal. */
const ways: Record<string, (args: string[]) => string[]> = {
  directly: (args) => denoCommand(args),
  "by the launcher": (
    args,
  ) => ["deno", "run", "--quiet", "-A", `${root}tools/launch.ts`, ...denoCommand(args).slice(1)],
  "by ./task": (args) => [`${root}task`, "lowrank", ...args],
};

/** Starts a long run, sends signals once it has made a step, and hears its end. `input` is what its standard input is. */
async function signalled(
  way: string,
  signals: readonly Deno.Signal[],
  { shell = 'exec "$@" < /dev/null', steps = "1000000" } = {},
) {
  await using place = await attackFolder();
  // ./task may write into out/ alone.
  const out = way === "by ./task" ? Deno.makeTempDirSync({ dir: `${root}out`, prefix: "attack-" }) : place.at("run");
  const run = trainArgs(out, "--steps", steps).map((arg) =>
    ["model", "rows.jsonl"].includes(arg) ? place.at(arg) : arg
  );
  try {
    const child = new Deno.Command("sh", {
      args: ["-c", shell, "sh", ...ways[way](run)],
      cwd: place.folder,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let sent = false;
    const ended: Ended = await heard(child, (text) => {
      if (sent || !text.includes("step ")) return;
      sent = true;
      for (const signal of signals) child.kill(signal);
    });
    return { ...ended, tensors: readAdapter(out).tensors.length, lock: `${out}/.lock` };
  } finally {
    if (way === "by ./task") Deno.removeSync(out, { recursive: true });
  }
}

Deno.test({ name: "a signal to end lets the run save, whatever started it", ignore }, async (t) => {
  Deno.mkdirSync(`${root}out`, { recursive: true });
  for (const way of Object.keys(ways)) {
    for (const signal of ["SIGTERM", "SIGHUP", "SIGINT"] as const) {
      await t.step(`${signal}, ${way}`, async () => {
        const { code, err, tensors } = await signalled(way, [signal]);
        assertEquals(code, 130, err);
        assertStringIncludes(err, "the adapter is saved in");
        assert(tensors > 0);
      });
    }
  }
});

Deno.test({ name: "a signal that comes by several ways at once is one", ignore }, async () => {
  const { code, err } = await signalled("by ./task", ["SIGINT", "SIGTERM", "SIGHUP", "SIGINT"]);
  assertEquals(code, 130);
  assertStringIncludes(err, "the adapter is saved in");
});

Deno.test({ name: "a run under nohup outlives the end of its terminal", ignore }, async (t) => {
  // What nohup does where standard input is a terminal.
  const marked = `trap '' HUP; exec "$@" 0> /dev/null`;
  for (const [way, shell] of [["directly", marked], ["by ./task", `trap '' HUP; exec "$@"`]] as const) {
    await t.step(way, async () => {
      const { code, err } = await signalled(way, ["SIGHUP", "SIGHUP"], { shell, steps: "400" });
      assertEquals(code, 0, err);
      assertEquals(err.includes("Interrupted"), false);
    });
  }
});
