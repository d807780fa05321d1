import { assertEquals, assertThrows } from "@std/assert";
import { FileError, OptionError } from "../../core/errors.ts";
import { fixedOptions, readConfig, resolveConfig, type TrainConfig, trainOptions, writeConfig } from "./config.ts";
import { withOptions } from "../../tools/write_options_table.ts";
import { describeOptions, type OptionTable, resolveOptions } from "./option_table.ts";
import { inFolder } from "../../tests/folder.ts";

function withConfig<T>(text: string, use: (path: string) => T): T {
  return inFolder((folder) => {
    Deno.writeTextFileSync(`${folder}/run.yaml`, text);
    return use(`${folder}/run.yaml`);
  });
}

const read = (text: string) => withConfig(text, readConfig);

Deno.test("keys are flags without dashes; null is as if not given", () => {
  const text = "# a run\nmodel: base\nmask-prompt: false\nlr: 1e-3\ntargets: [c_attn, h.*.mlp.c_fc]\nsteps: ~\n";
  assertEquals(read(text), { model: "base", maskPrompt: false, lr: 1e-3, targets: ["c_attn", "h.*.mlp.c_fc"] });
  assertEquals(read("targets: c_attn, c_proj"), { targets: ["c_attn", "c_proj"] });
  for (const nothing of ["", "\n", "# nothing\n\n  # yet"]) assertEquals(read(nothing), {});
});

Deno.test("flags override the file, the file overrides the defaults, and what is written is read again", () => {
  const config = resolveConfig({ lr: 1e-3, r: 4, rslora: true }, { r: 2, rslora: false, data: "rows.jsonl" });
  assertEquals([config.lr, config.r, config.alpha, config.rslora, config.steps], [1e-3, 2, 16, false, undefined]);
  withConfig("", (path) => {
    writeConfig(path, config);
    assertEquals(resolveConfig(readConfig(path), {}), config);
  });
});

Deno.test("a flag of steps takes the place of the file's epochs, and one of epochs that of its steps", () => {
  const lengths = ({ steps, epochs }: TrainConfig) => [steps, epochs];
  assertEquals(lengths(resolveConfig({ epochs: 2 }, { steps: 9 })), [9, undefined]);
  assertEquals(lengths(resolveConfig({ steps: 9 }, { epochs: 2 })), [undefined, 2]);
  assertEquals(lengths(resolveConfig({ steps: 9 }, { lr: 1 })), [9, undefined]);
});

Deno.test("mistakes are named with their line", () => {
  const cases: [string, string][] = [
    ["model: a\nstepz: 3\n", "run.yaml line 2: there is no option stepz; did you mean steps?"],
    ["mask_prompt: true", "run.yaml line 1: there is no option mask_prompt; did you mean mask-prompt?"],
    ["learning_rate: 1", "run.yaml line 1: there is no option learning_rate; here it is lr"],
    ["lr: 0", "run.yaml line 1: lr is 0: give a number above 0"],
    ["alpha: -16", "run.yaml line 1: alpha is -16: give a number above 0"],
    ["steps: many", "run.yaml line 1: steps is many: give a whole number of at least 1"],
    ["\n\nr: 0.5", "run.yaml line 3: r is 0.5: give a whole number of at least 1"],
    ["schedule: step", "schedule is step: give one of constant, linear, cosine"],
    ["pack: yes please", "pack is yes please: give true or false"],
    ["dropout: 1", "dropout is 1: give a number from 0 to 0.99"],
    ["targets: [1]", "targets is a list: give one or more names"],
    ["model: [a", "is not YAML (unexpected end"],
    ["r: 1\nr: 2", "run.yaml line 2 is not YAML (duplicated mapping key"],
    ["- a\n- b", "run.yaml is not a list of options"],
    ["just text", "run.yaml is not a list of options"],
  ];
  for (const [text, sentence] of cases) assertThrows(() => read(text), OptionError, sentence);
  assertThrows(() => readConfig("absent.yaml"), FileError, "There is no file absent.yaml");
});

Deno.test("what only changes where a run computes may change when it is resumed", () => {
  const fixed = fixedOptions(resolveConfig({}, { out: "elsewhere", device: "cpu" }));
  assertEquals(
    ["out", "device", "threads", "save-every", "model", "data", "steps", "epochs"].filter((key) => key in fixed),
    [],
  );
  assertEquals(fixed["mask-prompt"], true);
  assertEquals(fixed.lr, 2e-4);
});

Deno.test("help is right at 80 columns and names defaults and choices", () => {
  const help = describeOptions(trainOptions);
  for (const line of help.split("\n")) assertEquals(line.length <= 80, true, line);
  const table = {
    batch: { kind: "whole", default: 4, help: "Rows" },
    on: { kind: "switch", default: true, help: "On" },
  } as const;
  assertEquals(
    describeOptions(table satisfies OptionTable),
    "  --batch N  Rows (default 4)\n  --[no-]on  On (on by default)",
  );
  assertEquals(resolveOptions(table, { on: false }), { batch: 4, on: false });
});

Deno.test("the page on training has the table of options as it is", async () => {
  const page = await Deno.readTextFile(new URL("../../docs/training.md", import.meta.url));
  assertEquals(page, withOptions(page), "run: deno task docs:options");
});
