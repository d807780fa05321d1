/** Runs of `lowrank train` that are killed at random moments and resumed, against one that nothing disturbed. */
import { assert, assertEquals } from "@std/assert";
import { checkpointStore } from "../../train/checkpoint/checkpoint.ts";
import { readMetrics } from "../../train/watch/metrics.ts";
import { rngFrom } from "../../data/rng.ts";
import { writeTinyModel } from "./tiny_model.ts";

const root = new URL("../../", import.meta.url);

/** Everything that a run carries on: accumulation, dropout, buckets, evaluations with a best, a checkpoint at every step. */
const options = [
  ...["--model", "model", "--data", "data", "--device", "cpu", "--threads", "1", "--quiet"],
  ...["--steps", "40", "--batch", "2", "--accumulate", "2", "--dropout", "0.1", "--buckets", "2", "--lr", "0.01"],
  ...["--save-every", "1", "--evaluate-every", "4", "--samples", "0"],
];

/** What happened. */
export interface KillReport {
  readonly kills: number;
  /** Runs that came to their end in spite of it, each compared with the undisturbed one. */
  readonly finished: number;
  /** Kills that left an unfinished folder, which the next run swept away. */
  readonly unfinished: number;
}

/**
 * Kills (SIGKILL) and resumes until `kills` processes died. After each, every checkpoint that is there must load, and none
 * of the newest may be gone; each run that ends must have the losses and the adapter of the undisturbed one, bit for bit.
 */
export async function killRuns(folder: string, kills: number, seed = 1): Promise<KillReport> {
  await writeTinyModel(`${folder}/model`);
  await Deno.mkdir(`${folder}/data`);
  for (const [name, count] of [["train", 30], ["valid", 4]] as const) {
    const rows = Array.from(
      { length: count },
      (_, i) => ({ prompt: "p".repeat(1 + 7 * i % 23), completion: `is ${i}` }),
    );
    await Deno.writeTextFile(`${folder}/data/${name}.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
  }
  const begun = performance.now();
  assertEquals((await start(folder, "whole").status).code, 0);
  const whole = performance.now() - begun;
  const wanted = await resultOf(folder, "whole");

  const rng = rngFrom(seed);
  const report = { kills: 0, finished: 0, unfinished: 0 };
  let newest = 0;
  while (report.kills < kills || newest > 0) {
    const child = start(folder, "killed", newest > 0);
    const last = report.kills >= kills; // the last one is left to finish
    const timer = last ? undefined : setTimeout(() => tryKill(child), (0.1 + rng.next()) * whole);
    const { code, signal } = await child.status;
    clearTimeout(timer);
    const steps = checkAll(`${folder}/killed/checkpoints`);
    if (signal !== "SIGKILL") {
      assertEquals(code, 0, "a resumed run failed");
      assertEquals(await resultOf(folder, "killed"), wanted);
      await Deno.remove(`${folder}/killed`, { recursive: true });
      report.finished++;
      newest = 0;
      continue;
    }
    report.kills++;
    report.unfinished += steps.unfinished;
    assert(steps.newest >= newest, `the checkpoint of step ${newest} is lost: the newest is of step ${steps.newest}`);
    newest = steps.newest;
  }
  return report;
}

function start(folder: string, out: string, resume = false): Deno.ChildProcess {
  return new Deno.Command("deno", {
    args: [
      ...[
        "run",
        "--quiet",
        "--no-check",
        "--no-prompt",
        "--no-lock",
        "--import-map",
        new URL("offline.json", root).href,
      ],
      ...["--allow-read", `--allow-write=${out}`, new URL("cli.ts", root).href, "train", ...options, "--out", out],
      ...(resume ? ["--resume"] : ["--overwrite"]),
    ],
    cwd: folder,
    stdout: "null",
    stderr: "inherit",
  }).spawn();
}

function tryKill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It had just ended by itself.
  }
}

/** Loads every checkpoint that is there; the newest step, and how many folders were left unfinished. */
function checkAll(folder: string): { newest: number; unfinished: number } {
  let names: string[];
  try {
    names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  } catch {
    return { newest: 0, unfinished: 0 }; // killed before the first checkpoint
  }
  const whole = names.filter((name) => name.startsWith("step-"));
  for (const name of whole) {
    const step = Number(name.slice(5));
    const { identity } = JSON.parse(Deno.readTextFileSync(`${folder}/${name}/run.json`));
    assertEquals(checkpointStore({ folder, identity }).read(step).step, step);
  }
  return { newest: Number(whole.at(-1)?.slice(5) ?? 0), unfinished: names.length - whole.length };
}

/** The losses by step and the adapter's bytes of a run that is done. */
async function resultOf(folder: string, out: string) {
  const { steps } = readMetrics(`${folder}/${out}/metrics.jsonl`);
  return {
    losses: steps.map(({ step, loss }) => [step, loss]),
    adapter: await Deno.readFile(`${folder}/${out}/adapter_model.safetensors`),
  };
}
