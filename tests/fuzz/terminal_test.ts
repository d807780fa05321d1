/**
 * Names and texts of others with commands to a terminal in them, in every command: on a terminal none arrives. `deno task
 * test:fuzz` draws names anew each time, a thousandth of its number; without a number one, always the same.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { parseJsonObject, readText } from "../../models/load/files/byte_source.ts";
import { attackFolder, isInstalled, trainArgs } from "../attack/command.ts";

const wanted = Deno.args[0] === undefined ? null : Number(Deno.args[0]);
const runs = wanted === null ? 1 : Math.ceil(wanted / 1000);

const ignore = Deno.build.os !== "linux" || !isInstalled("script");
if (ignore) console.log("no terminal is written to here: that needs Linux and script");

/** What moves a cursor, names a window, asks a terminal for an answer, or turns the reading direction. */
const commands = fc.constantFrom(
  ...[
    "\x1b[2J",
    "\x1b]0;owned\x07",
    "\x1b[6n",
    "\x1b]52;c;aGk=\x07",
    "\x9b31m",
    "\x9d0;owned\x9c",
    "\x07",
    "\x08\x08",
    "\r",
  ],
  ...["\x1bc", "\x1bP+q544e\x1b\\", "\x0e", "\u202e", "\u2066", "\x1b[?1049h", "\x7f", "\x85", "\x00"],
);
const evil = fc.tuple(fc.string({ maxLength: 3 }), commands, commands).map((parts) => parts.join(""));
/** A name that a file may have. */
const fileName = evil.map((text) => `n${text.replace(/[/\0\n]/g, "_")}`);

/** What reaches a terminal of these kinds comes from elsewhere; colours and the line that is drawn anew are the program's. */
// deno-lint-ignore no-control-regex
const own = /\x1b\[\d*(;\d+)*[mK]|\r(?=\n|[^\n]*\x1b\[K)|\r\n|\r\r\n/g;
const harmful = /(?![\n\t])[\p{Cc}\u202a-\u202e\u2066-\u2069]/u;

Deno.test({ name: `commands show what others wrote, and do not obey it, for ${runs} names`, ignore }, async () => {
  await using place = await attackFolder();
  const write = (path: string, value: unknown) => Deno.writeTextFileSync(place.at(path), JSON.stringify(value));
  const tokenizer = parseJsonObject(readText(place.at("model/tokenizer.json")), "tokenizer.json");
  const config = parseJsonObject(readText(place.at("adapter/adapter_config.json")), "adapter_config.json");
  const clean = parseJsonObject(readText(place.at("model/config.json")), "config.json");
  await fc.assert(
    fc.asyncProperty(fileName, evil, async (name, text) => {
      const rows = [{ text, label: text, [text]: text }, { text: "b", label: "c" }, { [text]: 1 }];
      Deno.writeTextFileSync(place.at(`${name}.jsonl`), rows.map((row) => JSON.stringify(row)).join("\n"));
      for (const from of ["model", "adapter"]) {
        Deno.mkdirSync(place.at(`${name}-${from}`), { recursive: true });
        for (const entry of Deno.readDirSync(place.at(from))) {
          if (entry.isFile) {
            Deno.copyFileSync(place.at(`${from}/${entry.name}`), place.at(`${name}-${from}/${entry.name}`));
          }
        }
      }
      // Every token is the text, so that what is generated is nothing else.
      const vocabulary = Object.fromEntries(Array.from({ length: 256 }, (_, i) => [`${text}${i}`, i]));
      write(`${name}-model/tokenizer.json`, {
        ...tokenizer,
        ...{ normalizer: null, pre_tokenizer: null, decoder: { type: "Fuse" } },
        model: { type: "WordLevel", vocab: vocabulary, unk_token: `${text}0` },
      });
      write(`${name}-adapter/adapter_config.json`, {
        ...config,
        ...{
          base_model_name_or_path: text,
          target_modules: [text],
          rank_pattern: { [text.replace(/[^\w]/g, ".")]: 8 },
          [text]: text,
        },
      });
      write(`${name}-broken.json`, { model_type: text });
      Deno.mkdirSync(place.at(`${name}-broken`), { recursive: true });
      write(`${name}-broken/config.json`, { ...clean, model_type: text, activation_function: text });
      const [model, adapter] = [`${name}-model`, `${name}-adapter`];
      const calls = [
        [
          "generate",
          "--model",
          model,
          "--device",
          "cpu",
          "--max-tokens",
          "8",
          "--temperature",
          "1",
          text.replace("\0", ""),
        ],
        ["inspect", model],
        ["inspect", adapter],
        ["inspect", `${name}-broken`],
        ["inspect", model, "--targets", text.replace("\0", "")],
        ["diff", adapter, "adapter"],
        ["diff", model, "model"],
        ["verify", adapter, "--device", "cpu"],
        ["verify", adapter, "--model", model, "--device", "cpu"],
        ["merge", adapter, "--model", model, "--out", `${name}-merged`, "--device", "cpu"],
        ["convert", adapter, "--to", "gguf", "--out", `${name}.gguf`, "--model", model],
        ["eval", "--model", model, "--data", `${name}.jsonl`, "--device", "cpu"],
        ["eval", "--model", "model", "--adapter", adapter, "--data", "rows.jsonl", "--device", "cpu"],
        ["report", adapter],
        ["train", "--model", model, "--data", `${name}.jsonl`, "--device", "cpu", "--out", `${name}-out`],
        trainArgs(`${name}-run`, "--steps", "2"),
        [name],
      ];
      for (const args of calls) {
        const { out } = await place.lowrank(args, {
          wrap: `f() { printf '%s\\0' "$@" > call; script -qec "xargs -0 -a call env" /dev/null; }; f`,
        });
        const found = harmful.exec(out.replace(own, ""));
        assertEquals(found && [args, out.slice(Math.max(0, found.index - 80))], null);
        assert(out.length > 0, `${args} said nothing`);
      }
    }),
    wanted === null ? { numRuns: runs, seed: 1 } : { numRuns: runs },
  );
});
