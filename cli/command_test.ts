import { assertEquals, assertThrows } from "@std/assert";
import { trainOptions } from "../train/options/config.ts";
import { others, ourName, suggestionFor } from "../train/options/foreign_options.ts";
import { writtenName } from "../train/options/option_table.ts";
import { readFlags, UsageError } from "./command.ts";
import { command as generate } from "./generate.ts";

const read = (...args: string[]) => readFlags(args, trainOptions).options;

Deno.test("a number below 0 is the value of the option before it, and no flag", () => {
  for (const args of [["--lr", "-1"], ["--lr=-1"], ["--lr", "-1e-3"], ["--lr", "-.5"]]) {
    assertThrows(
      () => read(...args),
      UsageError,
      `--lr is ${args.at(-1)!.replace("--lr=", "")}: give a number above 0`,
    );
  }
  assertThrows(() => read("--alpha", "-16", "--r", "4"), UsageError, "--alpha is -16: give a number above 0");
  assertThrows(() => read("--steps", "-3"), UsageError, "--steps is -3: give a whole number of at least 1");
  assertThrows(() => read("--out", "-3"), UsageError, "there is no option -3");
  assertEquals(read("--lr", "1", "--r", "2"), { lr: 1, r: 2 });
});

Deno.test("another tool's name of an option is answered with the one here", () => {
  const cases: [string, string][] = [
    ["--learning-rate", "; here it is --lr"],
    ["--learning_rate", "; here it is --lr"],
    ["--max-seq-length", "; here it is --seq"],
    ["--gradient-accumulation-steps", "; here it is --accumulate"],
    ["--per_device_train_batch_size", "; here it is --batch"],
    ["--num-train-epochs", "; here it is --epochs"],
    ["--lora-rank", "; here it is --r"],
    ["--iters", "; here it is --steps"],
    ["--train-on-inputs", "; here it is --no-mask-prompt"],
    ["--temp", ""], // of generate, and nothing of train is like it
    ["--optim", "; the optimiser is AdamW"], // and not --out, which is near
    ["--do_train", "; lowrank train trains"],
    ["--prompt", "; the text is given at the end, in quotes"],
    ["--chat-template", "; the model's own is used"],
    ["--bias", ""],
    ["--stepz", "; did you mean --steps?"],
  ];
  for (const [flag, remedy] of cases) {
    const error = assertThrows(() => read(flag, "1"), UsageError);
    assertEquals(error.message, `there is no option ${flag}${remedy}`);
  }
});

Deno.test("what another tool's option is called here is an option of train or generate, and never one's own name", () => {
  const known = new Set(
    Object.entries(trainOptions).flatMap(([name, { kind }]) =>
      kind === "switch" ? [writtenName(name), `no-${writtenName(name)}`] : [writtenName(name)]
    ),
  );
  for (const [, name] of generate.usage.matchAll(/^ {2}--([a-z-]+)/gm)) known.add(name);
  known.add("resume");
  for (const [name, theirs] of Object.entries(others)) {
    if (!known.has(name)) throw new Error(`${theirs} maps to --${name}, which does not exist`);
  }
  for (const name of known) {
    assertEquals(ourName(name), null, name);
    assertEquals(suggestionFor(name), null, name);
  }
});
