import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import project from "../deno.json" with { type: "json" };
import { writeTinyModel } from "../tests/e2e/tiny_model.ts";
import { readMetrics } from "../train/watch/metrics.ts";

const root = new URL("../", import.meta.url);
/** The permissions that the documents give the command line; what is not among them must not be needed. */
const permissions: string[] = project.tasks.lowrank.command.split("launch.ts").at(-1)!.match(/--allow-\S+/g)!;

/** Runs `lowrank` in a folder. */
async function lowrank(folder: string, args: readonly string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: [
      ...["run", "--quiet", "--no-prompt", "--no-lock", "--import-map", new URL("offline.json", root).href],
      ...[...permissions, new URL("cli.ts", root).href, ...args],
    ],
    cwd: folder,
    env,
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

/** A folder with the tiny model and data in three files. */
async function withWork(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await writeTinyModel(`${folder}/model`);
    await Deno.mkdir(`${folder}/data`);
    for (const [name, count] of [["train", 24], ["valid", 4], ["test", 4]] as const) {
      const rows = Array.from(
        { length: count },
        (_, i) => ({ prompt: "q".repeat(1 + 5 * i % 17), completion: `a${i}` }),
      );
      await Deno.writeTextFile(`${folder}/data/${name}.jsonl`, rows.map((row) => JSON.stringify(row)).join("\n"));
    }
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const onCpu = ["--device", "cpu", "--threads", "1"];
const training = ["train", "--model", "model", "--data", "data", "--steps", "6", "--lr", "0.01", ...onCpu];

Deno.test("every command has help with its options and an example, and says so on standard output", async () => {
  const { code, out, err } = await lowrank(".", ["--help"]);
  assertEquals([code, err], [0, ""]);
  const commands = [...out.matchAll(/^ {2}([a-z]+) {2,}\S/gm)].map(([, command]) => command).filter((command) =>
    command !== "lowrank"
  );
  assert(["train", "eval", "generate"].every((command) => commands.includes(command)), out);
  for (const command of commands) {
    const help = await lowrank(".", [command, "--help"]);
    assertEquals([help.code, help.err], [0, ""], command);
    assertStringIncludes(help.out, `Usage: lowrank ${command}`);
    assertStringIncludes(help.out, `Example:\n  lowrank ${command}`);
    for (const line of help.out.split("\n")) assert(line.length <= 120, line);
  }
  assertEquals((await lowrank(".", ["help", "train"])).out, (await lowrank(".", ["train", "--help"])).out);
  assertEquals((await lowrank(".", ["--version"])).out, `${project.version}\n`);
});

Deno.test("advice is given in the form in which the command was called", async () => {
  const hintOf = async (env: Record<string, string>, ...more: string[]) => {
    const { stderr } = await new Deno.Command("deno", {
      args: [
        ...["run", "--quiet", "--no-prompt", "--no-lock", "--import-map", "offline.json"],
        ...more,
        "cli.ts",
        "tran",
      ],
      cwd: root,
      env,
    }).output();
    return new TextDecoder().decode(stderr).split("\n")[1];
  };
  const allowed = ["--allow-read", "--allow-env=LOWRANK_CALL"];
  for (const call of ["./task lowrank", "deno task lowrank", "lowrank"]) {
    assertEquals(await hintOf({ LOWRANK_CALL: call }, ...allowed), `see ${call} --help`);
  }
  assertEquals(await hintOf({ LOWRANK_CALL: "" }, "-A"), "see deno run -A cli.ts --help");
  assertEquals(
    await hintOf({ LOWRANK_CALL: "unasked" }, "--allow-read"),
    "see deno run … cli.ts --help",
  );
});

Deno.test("that stand-ins are used is reported once in a clone", async () => {
  const launch = [
    "run",
    "--quiet",
    "--no-prompt",
    "--allow-run=deno",
    "--allow-env",
    "--allow-read",
    "tools/launch.ts",
  ];
  const run = async () => {
    const args = [...launch, "run", "--quiet", "--allow-read", "{grants}", "cli.ts", "--version"];
    const { stdout, stderr } = await new Deno.Command("deno", { args, cwd: root }).output();
    return [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  };
  await run();
  assertEquals(await run(), [project.version, ""]);
});

Deno.test("train, eval and generate: what goes on is on standard error, results on standard output", () =>
  withWork(async (folder) => {
    const run = await lowrank(folder, [...training, "--save-every", "2", "--evaluate-every", "3"]);
    assertEquals(run.code, 0, run.err);
    assertStringIncludes(run.err, "train     24 rows of prompt and completion in data/train.jsonl");
    assertMatch(run.err, /batches {3}\d shapes?: 4 x /);
    assert(!run.err.includes("\x1b") && !run.err.includes("\r"), "a pipe gets plain lines");
    assertMatch(run.out, /^loss {6}\d\.\d{4} at step 1, \d\.\d{4} at step 6\nbest .*\nsaved {5}out\/adapter\n/);
    const { steps, evaluations } = readMetrics(`${folder}/out/adapter/metrics.jsonl`);
    assertEquals([steps.length, evaluations.map(({ step }) => step)], [6, [0, 3, 6]]);
    assertStringIncludes(await Deno.readTextFile(`${folder}/out/adapter/config.yaml`), "mask-prompt: true");

    const measured = await lowrank(folder, ["eval", "--adapter", "out/adapter", "--data", "data", "--json", ...onCpu]);
    assertEquals(measured.code, 0, measured.err);
    const { loss, perplexity, count, data } = JSON.parse(measured.out);
    assertEquals([data, Math.exp(loss)], ["data/test.jsonl", perplexity]);
    assert(count > 0);

    const made = await lowrank(folder, [
      "generate",
      "--adapter",
      "out/adapter",
      "--quiet",
      "--max-tokens",
      "4",
      ...onCpu,
      "qq",
    ]);
    assertEquals([made.code, made.err], [0, ""]);
    assert(made.out.endsWith("\n"));
  }));

Deno.test("generate: every way of choosing tokens, stop texts, and the summary of the text", () =>
  withWork(async (folder) => {
    const generate = (...args: string[]) =>
      lowrank(folder, ["generate", "--model", "model", "--max-tokens", "12", ...onCpu, ...args, "qq"]);
    const drawn = ["--temperature", "2", "--top-k", "50", "--top-p", "0.95", "--min-p", "0.001"];
    const penalised = [...drawn, "--repetition-penalty", "1.1", "--seed", "3"];
    const plain = await generate(...penalised);
    assertEquals(plain.code, 0, plain.err);
    assertMatch(plain.err, /^made {6}12 tokens, \d+ a second; cut at --max-tokens$/m);
    const { prompt, text, tokens, finish } = JSON.parse((await generate(...penalised, "--json", "--quiet")).out);
    assertEquals([prompt, tokens, finish, `${text}\n`], ["qq", 12, "length", plain.out]);
    // Its second and its fourth character end it: whichever comes first.
    const [, second, , fourth] = text;
    const stopped = await generate(...penalised, "--stop", fourth, "--stop", second);
    assertEquals(stopped.out, `${text.slice(0, Math.min(text.indexOf(second), text.indexOf(fourth)))}\n`);
    assertMatch(stopped.err, /^made {6}\d tokens?.*; ended by itself or a stop text$/m);
    const rounded = await generate("--activations", "int8");
    assertStringIncludes(rounded.err, "note: --activations int8 changes nothing here: no weights are kept as q4_0");
  }));

Deno.test("the saved configuration repeats the run; flags override it; --json and --quiet", () =>
  withWork(async (folder) => {
    const first = await lowrank(folder, [...training, "--json", "--quiet"]);
    assertEquals([first.code, first.err], [0, ""]);
    const again = await lowrank(folder, [
      "train",
      "--config",
      "out/adapter/config.yaml",
      "--out",
      "out/again",
      "--json",
    ]);
    assertEquals(again.code, 0, again.err);
    const [a, b] = [first, again].map(({ out }) => JSON.parse(out));
    assertEquals(a.losses.length, 6);
    assertEquals({ ...b, out: a.out }, a);
    assertEquals(b.out, "out/again");
  }));

Deno.test("an interrupted and resumed run ends as an undisturbed one; a finished one says so", () =>
  withWork(async (folder) => {
    const whole = await lowrank(folder, [...training, "--json"]);
    // The first half, as an interruption after a checkpoint leaves it: the second is taken away.
    const half = [...training, "--out", "out/half", "--save-every", "3", "--json"];
    await lowrank(folder, half);
    await Deno.remove(`${folder}/out/half/checkpoints/step-00000006`, { recursive: true });
    const rest = await lowrank(folder, ["train", "--resume", "--out", "out/half", "--json"]);
    assertEquals(rest.code, 0, rest.err);
    assertStringIncludes(rest.err, "resuming  after step 3");
    assertEquals(JSON.parse(rest.out).losses, JSON.parse(whole.out).losses.slice(3));
    const [a, b] = await Promise.all(
      ["adapter", "half"].map((name) => Deno.readFile(`${folder}/out/${name}/adapter_model.safetensors`)),
    );
    assertEquals(a, b);
    // Killed after its last checkpoint and before its adapter was written.
    await Deno.remove(`${folder}/out/half/adapter_model.safetensors`);
    const done = await lowrank(folder, [...half, "--resume"]);
    assertEquals(await Deno.readFile(`${folder}/out/half/adapter_model.safetensors`), a);
    assertEquals([done.code, JSON.parse(done.out).end], [0, "done"]);
  }));

Deno.test("a finished run goes on with more steps or epochs than it had", () =>
  withWork(async (folder) => {
    const run = ["train", "--model", "model", "--data", "data", "--lr", "0.01", "--schedule", "constant", ...onCpu];
    const whole = JSON.parse((await lowrank(folder, [...run, "--epochs", "2", "--json", "--quiet"])).out);
    assertEquals(whole.losses.length, 12);
    const half = await lowrank(folder, [...run, "--epochs", "1", "--out", "out/more", "--json", "--quiet"]);
    assertEquals(half.code, 0, half.err);
    const resume = ["train", "--resume", "--out", "out/more", "--json"];
    const more = await lowrank(folder, [...resume, "--steps", "9"]);
    assertEquals(more.code, 0, more.err);
    assertEquals(JSON.parse(more.out).losses, whole.losses.slice(6, 9));
    const rest = await lowrank(folder, [...resume, "--epochs", "2"]);
    assertEquals(JSON.parse(rest.out).losses, whole.losses.slice(9));
    const { run: facts, steps } = readMetrics(`${folder}/out/more/metrics.jsonl`);
    assertEquals([facts.steps, steps.map(({ step }) => step)], [12, Array.from({ length: 12 }, (_, i) => i + 1)]);
  }));

Deno.test("checkpoints that can't be written are reported, and the run continues to its adapter", () =>
  withWork(async (folder) => {
    await Deno.mkdir(`${folder}/out/adapter`, { recursive: true });
    await Deno.writeTextFile(`${folder}/out/adapter/checkpoints`, "a file where a folder should be");
    const run = await lowrank(folder, [...training, "--save-every", "3", "--json", "--quiet"]);
    assertEquals(run.code, 0, run.err);
    for (const step of [3, 6]) {
      assertMatch(
        run.err,
        new RegExp(`The checkpoint of step ${step} is not saved: .* a part of its path is a file.* The run continues`),
      );
    }
    assertEquals(JSON.parse(run.out).losses.length, 6);
    assert((await Deno.stat(`${folder}/out/adapter/adapter_model.safetensors`)).size > 0);
  }));

Deno.test("all of a model can be trained, and is saved as one", () =>
  withWork(async (folder) => {
    const run = await lowrank(folder, [...training, "--full", "--out", "out/full", "--json"]);
    assertEquals(run.code, 0, run.err);
    assertStringIncludes(run.err, "training  all 8,448 parameters");
    const { losses } = JSON.parse(run.out);
    const measured = await lowrank(folder, ["eval", "--model", "out/full", "--data", "data", "--json", ...onCpu]);
    assertEquals(measured.code, 0, measured.err);
    assert(JSON.parse(measured.out).loss < losses[0]);
  }));

Deno.test("an adapter is trained further, on another base only where that is asked for", () =>
  withWork(async (folder) => {
    assertEquals((await lowrank(folder, training)).code, 0);
    const further = [...training, "--adapter", "out/adapter", "--out", "out/further"];
    assertEquals((await lowrank(folder, further)).code, 0);
    await writeTinyModel(`${folder}/model`, {
      weights: (all) => (all.get("ln_f.weight")!.data as Float32Array).fill(1),
    });
    const refused = await lowrank(folder, [...further, "--overwrite"]);
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.err, "or allow any base (anyBase: true, --any-base)");
    const asked = await lowrank(folder, [...further, "--overwrite", "--any-base"]);
    assertEquals(asked.code, 0, asked.err);
  }));

Deno.test("bad rows are left out where that is asked for, and that is reported even when quiet", () =>
  withWork(async (folder) => {
    await Deno.writeTextFile(`${folder}/data/train.jsonl`, '{"text":"fine"}\n{"text":\n{"text":"fine, too"}\n');
    const run = await lowrank(folder, [...training, "--skip-bad-rows", "--quiet"]);
    assertEquals(run.code, 0, run.err);
    assertStringIncludes(
      run.err,
      "data/train.jsonl: 1 bad row was left out, such as: data/train.jsonl line 2 is not JSON",
    );
  }));

Deno.test("rows with labels teach a classifier, whose classes are kept with it", () =>
  withWork(async (folder) => {
    const golden = new URL("tests/goldens/cases/bert-base/model/", root);
    for (const name of ["config.json", "model.safetensors"]) {
      await Deno.copyFile(new URL(name, golden), `${folder}/model/${name}`);
    }
    const rows = (of: number) =>
      Array.from({ length: of }, (_, i) => ({ text: i % 3 ? "hello you" : "win win", label: i % 3 ? "ham" : "spam" }));
    const write = (name: string, of: number) =>
      Deno.writeTextFile(
        `${folder}/data/${name}.jsonl`,
        rows(of).map((row) => JSON.stringify(row)).join("\n"),
      );
    await Promise.all([write("train", 24), write("valid", 6), write("test", 2)]);
    const run = await lowrank(folder, [...training, "--steps", "24", "--targets", "query,value", "--json"]);
    assertEquals(run.code, 0, run.err);
    assertStringIncludes(run.err, "24 rows of text and label (2 classes) in data/train.jsonl");
    assertEquals(JSON.parse(run.out).evaluations.at(-1).evaluation.accuracy, 1);
    // The test rows happen to have both classes in another order than the alphabet's.
    const measured = await lowrank(folder, ["eval", "--adapter", "out/adapter", "--data", "data", "--json", ...onCpu]);
    assertEquals(measured.code, 0, measured.err);
    assertEquals(JSON.parse(measured.out).accuracy, 1);
    const byBlocks = await lowrank(folder, [
      ...[
        ...training,
        "--steps",
        "24",
        "--targets",
        "query,value",
        "--json",
        "--checkpoint-blocks",
        "--out",
        "out/blocks",
      ],
    ]);
    assertEquals(byBlocks.code, 0, byBlocks.err);
    assertEquals(JSON.parse(byBlocks.out).losses[0], JSON.parse(run.out).losses[0]);
    const base = await lowrank(folder, ["eval", "--model", "model", "--data", "data", ...onCpu]);
    assertEquals(base.code, 1);
    assertStringIncludes(base.err, "has no trained classifying head to measure");
  }));
