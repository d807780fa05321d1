/** Nobody reads the output: a full disk, a closed terminal, a reader that ended. Work goes on; results are not lost in silence. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { attackFolder, isInstalled, trainArgs } from "./command.ts";

const ignore = Deno.build.os !== "linux";
const full = "error: the result can't be written to standard output: the disk is full; make room.";

/** Commands whose standard output is what was asked for; what they leave behind all the same. */
const commands: [string, string[], string?][] = [
  ["train", trainArgs("run", "--steps", "3"), "run/adapter_model.safetensors"],
  ["train --json", trainArgs("run", "--steps", "3", "--overwrite", "--json"), "run/adapter_model.safetensors"],
  ["train --dry-run", trainArgs("dry", "--dry-run")],
  ["generate", ["generate", "--model", "model", "--device", "cpu", "--max-tokens", "2000", "hi"]],
  ["generate --json", ["generate", "--model", "model", "--device", "cpu", "--max-tokens", "2", "--json", "hi"]],
  ["eval", ["eval", "--model", "model", "--data", "rows.jsonl", "--device", "cpu"]],
  ["inspect", ["inspect", "model"]],
  ["merge", ["merge", "adapter", "--out", "merged", "--device", "cpu"], "merged/model.safetensors"],
  ["convert", ["convert", "adapter", "--to", "gguf", "--out", "a.gguf"], "a.gguf"],
  ["diff", ["diff", "adapter", "adapter"]],
  ["verify", ["verify", "adapter", "--device", "cpu"]],
  ["report", ["report", "adapter"], "adapter/report.html"],
  ["help", ["--help"]],
  ["train --help", ["train", "--help"]],
  ["version", ["--version"]],
];

Deno.test(
  { name: "standard output that takes nothing ends in one sentence, after the work is done", ignore },
  async (t) => {
    await using place = await attackFolder();
    for (const [name, args, made] of commands) {
      await t.step(name, async () => {
        const { code, err } = await place.lowrank(args, { redirect: "> /dev/full" });
        assertStringIncludes(err, full);
        assertEquals([code, err.trimEnd().split("\n").filter((line) => line.startsWith("error")).length], [1, 1], err);
        if (made !== undefined) assertEquals(pathKind(place.at(made)), "file");
      });
    }
  },
);

Deno.test({ name: "standard error that takes nothing changes nothing", ignore }, async (t) => {
  await using place = await attackFolder();
  for (const [name, args, made] of commands.filter(([name]) => /^(train|generate|inspect)/.test(name))) {
    await t.step(name, async () => {
      const { code } = await place.lowrank(args, { redirect: "2> /dev/full" });
      assertEquals(code, 0);
      if (made !== undefined) assertEquals(pathKind(place.at(made)), "file");
    });
  }
});

Deno.test(
  { name: "a training run outlives whatever its streams answer", ignore: ignore || !isInstalled("strace") },
  async (t) => {
    await using place = await attackFolder();
    for (const error of ["EIO", "EPIPE", "ENOSPC", "EDQUOT", "ENXIO"]) {
      await t.step(error, async () => {
        const { code } = await place.lowrank(trainArgs("run", "--steps", "20", "--overwrite"), {
          ...{ redirect: "> /dev/null 2> /dev/null", path: "/dev/null", inject: [`inject=write:error=${error}`] },
        });
        assertEquals(code, error === "EPIPE" ? 0 : 1, "what the run came to could not be written");
        assert(readAdapter(place.at("run")).tensors.length > 0);
        assertEquals(pathKind(place.at("run/checkpoints/step-00000020/run.json")), "file");
      });
    }
  },
);

Deno.test({ name: "a reader that ends ends nothing but a text that is made for it", ignore }, async (t) => {
  await using place = await attackFolder();
  await t.step("train, both streams", async () => {
    const piped = "sh -c '\"$@\"; echo $? > code' sh";
    const { code } = await place.lowrank(trainArgs("run", "--steps", "300"), {
      redirect: "2>&1 | head -c 1",
      wrap: piped,
    });
    assertEquals([code, Deno.readTextFileSync(place.at("code")).trim()], [0, "0"]);
    assertEquals(pathKind(place.at("run/adapter_model.safetensors")), "file");
  });
  await t.step("generate", async () => {
    const endless = [
      "generate",
      "--model",
      "model",
      "--device",
      "cpu",
      "--max-tokens",
      "60",
      "--temperature",
      "2",
      "hi",
    ];
    const piped = "sh -c '\"$@\"; echo $? > code' sh";
    await place.lowrank(endless, { redirect: "| true", wrap: piped });
    assertEquals(Deno.readTextFileSync(place.at("code")).trim(), "0");
  });
});

Deno.test({ name: "what others wrote moves nothing on a terminal, and is left alone in a pipe", ignore }, async (t) => {
  await using place = await attackFolder();
  const evil = "\x1b]0;owned\x07\x1b[2J\u202e";
  const { config, ...rest } = JSON.parse(Deno.readTextFileSync(place.at("adapter/adapter_config.json")));
  const named = { ...config, ...rest, base_model_name_or_path: `model${evil}` };
  Deno.writeTextFileSync(place.at("adapter/adapter_config.json"), JSON.stringify(named));
  await t.step("piped", async () => {
    assertStringIncludes((await place.lowrank(["inspect", "adapter"])).out, evil);
  });
  await t.step({
    name: "on a terminal",
    ignore: !isInstalled("script"),
    fn: async () => {
      const { out } = await place.lowrank(["inspect", "adapter"], {
        wrap: 'f() { script -qec "$(printf "%s " "$@")" /dev/null; }; f',
      });
      assertStringIncludes(out, "model\ufffd]0;owned\ufffd\ufffd[2J\ufffd");
      assertEquals(out.includes("\x1b]"), false);
    },
  });
});
