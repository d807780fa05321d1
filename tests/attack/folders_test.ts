/** Output folders: two writers at once, what an old model left, links that another put there, and an adapter's wishes. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { readAdapter } from "../../formats/peft/files.ts";
import { attackFolder, linkTo, trainArgs } from "./command.ts";

const ignore = Deno.build.os === "windows";
const merge = ["merge", "adapter", "--out", "merged", "--device", "cpu"];
const convert = (to: string, out: string) => ["convert", "adapter", "--to", to, "--out", out];
const text = (path: string) => Deno.readTextFileSync(path);

Deno.test({ name: "writers of one folder at once leave one of their results, whole", ignore }, async (t) => {
  await using place = await attackFolder();
  const commands: [string, string[], string][] = [
    ["merge", [...merge, "--overwrite"], "merged"],
    ["peft", convert("peft", "peft"), "peft"],
    ["mlx", convert("mlx", "mlx"), "mlx"],
    ["gguf", convert("gguf", "a.gguf"), "a.gguf"],
  ];
  for (const [name, args, out] of commands) {
    await t.step(name, async () => {
      const all = await Promise.all([args, args, args].map((one) => place.lowrank(one)));
      assertEquals(all.map(({ code, err }) => [code, err.includes("error")]), all.map(() => [0, false]));
      if (pathKind(place.at(out)) === "file") return;
      const names = [...Deno.readDirSync(place.at(out))].map(({ name }) => name);
      assertEquals(names.filter((name) => name.startsWith(".")), [], "nothing is left of how it was written");
    });
  }
});

Deno.test({ name: "nothing is merged or converted into the folder of a run in progress", ignore }, async () => {
  await using place = await attackFolder();
  let begun = false;
  const said: string[] = [];
  const tries: Promise<unknown>[] = [];
  await place.lowrank(trainArgs("run", "--steps", "1000000"), {
    onText: (all, child) => {
      if (begun || !all.includes("step ")) return;
      begun = true;
      for (const args of [["merge", "adapter", "--out", "run"], convert("peft", "run")]) {
        tries.push(place.lowrank(args).then(({ code, err }) => said.push(`${code} ${err.trim().split("\n").at(-1)}`)));
      }
      Promise.all(tries).then(() => child.kill("SIGTERM"));
    },
  });
  for (const line of said) assertStringIncludes(line, "1 error: another run is writing into run");
  assertEquals(said.length, 2);
  assert(readAdapter(place.at("run")).tensors.length > 0);
});

Deno.test({ name: "what an old model left does not stay beside a new one", ignore }, async () => {
  await using place = await attackFolder();
  Deno.mkdirSync(place.at("merged"));
  const old = ["chat_template.jinja", "pytorch_model.bin", "model-00001-of-00002.safetensors", "added_tokens.json"];
  for (const name of [...old, "README.md"]) Deno.writeTextFileSync(place.at(`merged/${name}`), "old");
  assertEquals((await place.lowrank(merge)).code, 0);
  const names = [...Deno.readDirSync(place.at("merged"))].map(({ name }) => name).sort();
  assertEquals(names, ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
});

Deno.test(
  { name: "a companion that is a link to elsewhere is not copied into what people publish", ignore },
  async (t) => {
    await using place = await attackFolder();
    Deno.writeTextFileSync(place.at("secret"), "SECRET");
    for (const name of ["vocab.txt", "chat_template.jinja", "generation_config.json"]) {
      await t.step(name, async () => {
        linkTo(place.at("secret"), place.at(`model/${name}`));
        const { code, err } = await place.lowrank(merge);
        assertEquals(code, 1, err);
        assertStringIncludes(err, "is a link to");
        assertEquals(pathKind(place.at(`merged/${name}`)), null);
        Deno.removeSync(place.at(`model/${name}`));
      });
    }
    await t.step("a link within the model's folder is the model's own", async () => {
      Deno.renameSync(place.at("model/tokenizer_config.json"), place.at("model/shared.json"));
      linkTo("shared.json", place.at("model/tokenizer_config.json"));
      assertEquals((await place.lowrank(merge)).code, 0);
    });
  },
);

Deno.test({ name: "no output is written through a link that lay in its folder", ignore }, async (t) => {
  await using place = await attackFolder();
  const commands: Record<string, string[]> = {
    train: trainArgs("out", "--steps", "2"),
    merge: [...merge, "--out", "out"],
  };
  commands.peft = convert("peft", "out");
  commands.mlx = convert("mlx", "out");
  const names = [
    "config.yaml",
    "metrics.jsonl",
    ".lock",
    "report.html",
    "adapter_config.json",
    "config.json",
    ".probe",
  ];
  names.push("adapter_model.safetensors", "adapters.safetensors", "model.safetensors", "tokenizer.json", ".new");
  names.push("adapter_config.json.new", "adapter_model.safetensors.new", "config.json.part", "labels.json");
  for (const [command, args] of Object.entries(commands)) {
    for (const chosen of [names, ["checkpoints"], ["metrics.jsonl"]]) {
      await t.step(`${command}: ${chosen.length === 1 ? chosen[0] : "every name"}`, async () => {
        for (const path of ["out", "theirs"]) {
          if (pathKind(place.at(path))) Deno.removeSync(place.at(path), { recursive: true });
        }
        for (const path of ["out", "theirs"]) Deno.mkdirSync(place.at(path));
        for (const name of chosen) {
          // Of formats that the command would refuse to mix, none is there.
          if (command === "mlx" ? name.startsWith("adapter_model.safetensors") : name === "adapters.safetensors") {
            continue;
          }
          Deno.writeTextFileSync(place.at(`theirs/${name}`), "theirs");
          linkTo(place.at(`theirs/${name}`), place.at(`out/${name}`));
        }
        if (chosen[0] === "checkpoints") {
          Deno.removeSync(place.at("theirs/checkpoints"));
          Deno.mkdirSync(place.at("theirs/checkpoints"));
        }
        const { code, err } = await place.lowrank(args);
        assert(code === 0 || err.includes("is a link, which is not written through"), err);
        for (const { name, isFile } of Deno.readDirSync(place.at("theirs"))) {
          if (isFile) assertEquals([name, text(place.at(`theirs/${name}`))], [name, "theirs"]);
          else assertEquals([...Deno.readDirSync(place.at(`theirs/${name}`))], []);
        }
      });
    }
  }
});

Deno.test({ name: "an adapter has nothing fetched by the base that it names", ignore }, async (t) => {
  await using place = await attackFolder();
  let asked = 0;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, () => {
    asked++;
    return new Response("{}");
  });
  const config = JSON.parse(text(place.at("adapter/adapter_config.json")));
  const port = server.addr.port;
  const bases = [
    `http://127.0.0.1:${port}/m`,
    `HTTPS://127.0.0.1:${port}/m`,
    "file:///etc",
    "data:,x",
    "a\0b",
    "\x1b]0;x\x07",
  ];
  for (const base of bases) {
    await t.step(JSON.stringify(base), async () => {
      const wanted = { ...config, base_model_name_or_path: base };
      Deno.writeTextFileSync(place.at("adapter/adapter_config.json"), JSON.stringify(wanted));
      const commands = [["generate", "--adapter", "adapter", "hi"], [
        "eval",
        "--adapter",
        "adapter",
        "--data",
        "rows.jsonl",
      ]];
      for (const args of [...commands, ["verify", "adapter"]]) {
        const { code, err } = await place.lowrank(args, { permissions: ["--allow-net=127.0.0.1", "--allow-env"] });
        assertEquals(code, 1, err);
        assertStringIncludes(err, "as its base, which is neither a path nor a name on the hub");
      }
    });
  }
  await server.shutdown();
  assertEquals(asked, 0);
});
