import { assertEquals, assertStringIncludes } from "@std/assert";
import { grantsFor } from "./grants.ts";

const files: Record<string, string> = {
  "here/model": "",
  "ad/adapter_config.json": '{"base_model_name_or_path":"owner/base"}',
  "local/adapter_config.json": '{"base_model_name_or_path":"here/model"}',
  "far/adapter_config.json": '{"base_model_name_or_path":"http://elsewhere/base"}',
  "bad/adapter_config.json": "{",
  ad: "",
  local: "",
  far: "",
  bad: "",
  "run.yaml": "out: /data/run\nmodel: owner/name\n",
  "odd.yaml": "[",
  "kept/config.yaml": "model: owner/kept\n",
};

const flagsOf = (line: string, env: Record<string, string> = { HOME: "/home/me" }) =>
  grantsFor(line.split(" "), {
    env: (name) => env[name],
    exists: (path) => Object.hasOwn(files, path),
    text: (path) => files[path] ?? null,
  }).flags.filter((flag) => !flag.startsWith("--allow-env="));

const hub = ["--allow-net=huggingface.co,*.huggingface.co,*.hf.co", "--allow-write=/home/me/.cache/huggingface/hub"];

Deno.test("the launcher grants what the options name, and nothing else", () => {
  const cases: [string, string[]][] = [
    ["train --model here/model --out out/a", []],
    ["train --model here/model --out ./out/a", []],
    ["train --model here/model", []],
    ["train --model here/model --out out/../secret", ["--allow-write=out/../secret"]],
    ["train --model here/model --out /data/x", ["--allow-write=/data/x"]],
    ["train --model here/model --out=/data/x", ["--allow-write=/data/x"]],
    ["train --model here/model --out /data/x,/", []],
    ["train --out", []],
    ["train --model ./gone/model", []],
    ["train --model owner/name", hub],
    ["train --model owner/name/file.gguf", hub],
    ["train --config run.yaml", ["--allow-write=/data/run", ...hub]],
    ["train --config run.yaml --model here/model --out out/b", []],
    ["train --config odd.yaml", []],
    ["train --resume --out kept", ["--allow-write=kept", ...hub]],
    ["train --model https://host.example:8/m", ["--allow-net=host.example:8"]],
    ["train --model here/model --blas", ["--allow-ffi"]],
    ["generate --adapter local owner/name", []],
    ["generate --adapter ad text", hub],
    ["verify ad", hub],
    ["verify local", []],
    ["verify far", []],
    ["verify bad", []],
    ["verify owner/adapter", hub],
    ["merge local --out merged", ["--allow-write=merged"]],
    ["convert local --to gguf --out a.gguf", ["--allow-write=."]],
    ["convert local --to gguf --out /x/a.gguf", ["--allow-write=/x"]],
    ["convert local --to gguf --out /a.gguf", ["--allow-write=/"]],
    ["report /data/x", ["--allow-write=/data/x"]],
    ["report /data/x/metrics.jsonl", ["--allow-write=/data/x"]],
    ["report out/x", []],
    ["verify local --allow-net=a.example", ["--allow-net=a.example"]],
    ["generate -- --allow-net --out /x", []],
    ["", []],
  ];
  for (const [line, flags] of cases) assertEquals(flagsOf(line), flags, line);
  assertEquals(
    flagsOf("train --model owner/name", { HF_ENDPOINT: "http://127.0.0.1:9/x", HF_HUB_CACHE: "/c" }),
    ["--allow-net=127.0.0.1:9", "--allow-write=/c"],
  );
});

Deno.test("permissions among the words are taken out of them", () => {
  const { words, said } = grantsFor(["verify", "--allow-ffi", "a", "--", "--allow-run"]);
  assertEquals(words, ["verify", "a", "--", "--allow-run"]);
  assertEquals(said, ["do what --allow-ffi allows"]);
});

Deno.test("what is granted for a name on the hub is enough to look for it", async () => {
  const { flags, words } = grantsFor(["inspect", "owner/no-such-name"]);
  const root = new URL("../", import.meta.url);
  const [map, program] = ["offline.json", "cli.ts"].map((name) => new URL(name, root).href);
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--no-lock",
      "--import-map",
      map,
      "--allow-read",
      ...flags,
      program,
      ...words,
    ],
    env: { HF_HUB_OFFLINE: "1" },
  }).output();
  assertStringIncludes(new TextDecoder().decode(stderr), "is not in the cache");
});
