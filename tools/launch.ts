/**
 * `launch.ts SUBCOMMAND ARGS…` runs `deno SUBCOMMAND ARGS…`. Where JSR can't be reached it adds `--import-map offline.json`,
 * so that the same sources run on stand-ins for the `jsr:` packages, and says so. In the arguments, `{tmp}` stands for the
 * system's folder for temporary files, `{deno}` for the program that runs this, `{grants}` for the permissions that the words
 * after the program's name ask for. The exit code is that of the command.
 */
import { tmpdir } from "node:os";
import { setTimeout } from "node:timers/promises";
import { callVariable } from "../cli/call.ts";
import { warn } from "../core/host/output.ts";
import { grantsFor } from "./grants.ts";

const [subcommand, ...rest] = Deno.args.map((arg) =>
  arg.replaceAll("{tmp}", tmpdir()).replaceAll("{deno}", Deno.execPath())
);
const args = [subcommand];
if (!await reachesJsr()) {
  warnOnce("launch: JSR can't be reached; running with the stand-ins of offline.json");
  args.push("--import-map", "offline.json");
}
if (subcommand === "run") args.push("--no-prompt");
const place = rest.indexOf("{grants}");
if (place >= 0) {
  const { flags, said, words } = grantsFor(rest.slice(place + 2));
  if (said.length > 0) warn(`launch: as its options ask, this may ${said.join(", ")}`);
  rest.splice(place, rest.length, ...flags, `--allow-env=${callVariable}`, rest[place + 1], ...words);
}
// A report that is asked for behind a task's own `--` is Deno's to write, and not for the tests.
const end = rest.indexOf("--"), report = rest.findIndex((arg) => arg.startsWith("--junit-path="));
if (end >= 0 && report > end) rest.splice(end, 0, ...rest.splice(report, 1));
args.push(...rest);
// Any value silences the Vulkan loader's complaint about a missing folder.
const env = {
  XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? tmpdir(),
  ...(place >= 0 && { [callVariable]: `${Deno.env.get("LOWRANK_TASK") ?? "deno task"} lowrank` }),
};
const command = new Deno.Command("deno", { args, env }).spawn();
// What asks this to end asks the command, which may want to save: this waits for it.
const signals: readonly Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];
for (const signal of signals) {
  Deno.addSignalListener(signal, () => {
    try {
      if (Deno.build.os !== "windows") command.kill(signal); // where Ctrl-C reaches the whole console
    } catch {
      // It has ended meanwhile.
    }
  });
}
Deno.exit((await command.status).code);

/** Says a line once in this clone: Deno keeps a storage for each program by its path. */
function warnOnce(line: string): void {
  try {
    if (localStorage.getItem(line) !== null) return;
    localStorage.setItem(line, "shown");
  } catch {
    // Where nothing can be kept, it is reported each time.
  }
  warn(line);
}

function reachesJsr(): Promise<boolean> {
  const reached = import("@std/assert").then(() => true, () => false);
  return Promise.race([reached, setTimeout(15_000, false, { ref: false })]); // or no answer in 15 seconds
}
