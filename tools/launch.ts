/**
 * `launch.ts SUBCOMMAND ARGS…` runs `deno SUBCOMMAND ARGS…`. Where JSR can't be reached it adds `--import-map offline.json`,
 * so that the same sources run on stand-ins for the `jsr:` packages, and says so. In the arguments, `{tmp}` stands for the
 * system's folder for temporary files, `{deno}` for the program that runs this. The exit code is that of the command.
 */
import { tmpdir } from "node:os";

const [subcommand, ...rest] = Deno.args.map((arg) =>
  arg.replaceAll("{tmp}", tmpdir()).replaceAll("{deno}", Deno.execPath())
);
const args = [subcommand];
if (!await reachesJsr()) {
  console.error("launch: JSR can't be reached; running with the stand-ins of offline.json");
  args.push("--import-map", "offline.json");
}
args.push(...rest);
// Any value silences the Vulkan loader's complaint about a missing folder.
const env = { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? tmpdir() };
// Ctrl-C goes to the command, too, which may want to save: this waits for it.
Deno.addSignalListener("SIGINT", () => {});
const status = await new Deno.Command("deno", { args, env }).spawn().status;
Deno.exit(status.code);

async function reachesJsr(): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no answer in 15 seconds")), 15_000);
  });
  try {
    await Promise.race([import("@std/assert"), late]);
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
  }
}
