/** Data that can't be used, as rows of the table of bad inputs. */
import { file, onModel, rows } from "./bad_files.ts";

/** Rows of chats, for the model with a template. */
const chatRows = (line: string) => async (folder: string) => {
  const path = `${folder}/model/tokenizer_config.json`;
  const chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}" +
    "{% if add_generation_prompt %}<assistant>{% endif %}";
  await Deno.writeTextFile(path, JSON.stringify({ ...JSON.parse(await Deno.readTextFile(path)), chat_template }));
  await Deno.writeTextFile(`${folder}/rows.jsonl`, line + "\n");
};

/** Other ids for some of the tokenizer's tokens, and a row that has them. */
const tokenizerIds = (ids: Readonly<Record<string, number>>) => async (folder: string) => {
  const path = `${folder}/model/tokenizer.json`;
  const tokenizer = JSON.parse(await Deno.readTextFile(path));
  Object.assign(tokenizer.model.vocab, ids);
  await Deno.writeTextFile(path, JSON.stringify(tokenizer));
  await Deno.writeTextFile(`${folder}/rows.jsonl`, '{"text":"a b"}\n');
};

/** Data that can't be learned from. */
export const data = [
  {
    name: "No such data",
    args: ["--model", "model", "--data", "absent.jsonl"],
    sentence: "error: There is no file absent.jsonl: check the path.",
    code: 1,
  },
  {
    name: "Data of an unknown kind",
    args: ["--model", "model", "--data", "rows.csv"],
    files: file("rows.csv", new TextEncoder().encode("prompt,completion\n")),
    sentence:
      "error: Cannot read data from rows.csv: its name must end in .jsonl (one row per line) or .txt (plain text); " +
      'pandas makes one: pandas.read_csv(…).to_json("rows.jsonl", orient="records", lines=True).',
    code: 1,
  },
  {
    name: "Empty data",
    args: onModel,
    files: rows("\n"),
    sentence: "error: rows.jsonl is empty: give it at least one row, or leave the file out.",
    code: 1,
  },
  {
    name: "A row that is too short",
    args: onModel,
    files: rows('{"text":""}\n'),
    sentence: "error: rows.jsonl line 1 has nothing to learn (1 tokens): it needs at least one token after the first.",
    code: 1,
  },
  {
    name: "Data that is not UTF-8",
    args: onModel,
    files: file(
      "rows.jsonl",
      new Uint8Array([...new TextEncoder().encode('{"text":"ab"}\n{"text":"'), 0xff, 0x22, 0x7d]),
    ),
    sentence: "error: rows.jsonl line 2 is not UTF-8: convert the file to UTF-8.",
    code: 1,
  },
  {
    name: "A row that is not JSON",
    args: onModel,
    files: rows('{"text":"fine"}\n{"text":"cut\n'),
    sentence: "error: rows.jsonl line 2 is not JSON (…): fix the line or remove it.",
    code: 1,
  },
  {
    name: "A row with other keys",
    args: onModel,
    files: rows('{"text":"fine"}\n{"txt":"not"}\n'),
    sentence: 'error: rows.jsonl line 2 is an object with the keys ["txt"]: a row is {"text": …',
    code: 1,
  },
  {
    name: "A file that is one list",
    args: onModel,
    files: rows('[\n{"text":"fine"}\n]\n'),
    sentence:
      "error: rows.jsonl line 1 begins a list: a .jsonl file has one object per line, without brackets and commas " +
      "around them (jq -c '.[]' makes them of an array).",
    code: 1,
  },
  {
    name: "Rows of another tool",
    args: onModel,
    files: rows('{"conversations":[{"from":"human","text":"Hi"},{"from":"gpt","text":"Hello"}]}\n'),
    sentence:
      'error: rows.jsonl line 1 is an object with the keys ["conversations"]: call the list "conversations", and give each ' +
      'of it "from" (human, gpt or system) and "value", both of them texts; or call it "messages", with "role" and "content".',
    code: 1,
  },
  {
    name: "Labels for the program that trains a language model",
    args: onModel,
    files: rows('{"text":"fine","label":0}\n'),
    sentence: "error: rows.jsonl has rows with labels, which teach a classifier: lowrank train learns them.",
    code: 1,
  },
  {
    name: "A chat that ends with the user",
    args: onModel,
    files: rows('{"messages":[{"role":"user","content":"Hello?"}]}\n'),
    sentence:
      'error: rows.jsonl line 1: a chat to learn from must end with an "assistant" message, and this one ends with "user".',
    code: 1,
  },
  {
    name: "Tools for a template that has no place for them",
    args: onModel,
    files: chatRows(
      '{"messages":[{"role":"user","content":"Rain?"},{"role":"assistant","content":"No"}],"tools":[{}]}',
    ),
    sentence:
      "error: rows.jsonl line 1: The chat template of model/tokenizer.json refuses the conversation: it has no place for " +
      "tools, which would be left out.",
    code: 1,
  },
  {
    name: "A picture in a chat",
    args: onModel,
    files: chatRows(
      '{"messages":[{"role":"user","content":[{"type":"image"}]},{"role":"assistant","content":"A cat"}]}',
    ),
    sentence:
      'error: rows.jsonl line 1, message 1 (user) has a part of the type "image", and only text is read here: give parts ' +
      '{"type": "text", "text": …}, or the content as one text.',
    code: 1,
  },
  {
    name: "A message that says nothing",
    args: onModel,
    files: chatRows('{"messages":[{"role":"user","content":"Rain?"},{"role":"assistant","content":null}]}'),
    sentence: 'error: rows.jsonl line 1, message 2 (assistant) has no content: give it a text, if only "".',
    code: 1,
  },
  {
    name: "A token that the model has no row for",
    args: onModel,
    files: tokenizerIds({ a: 300 }),
    sentence:
      "error: rows.jsonl line 1 has token ids up to 300, and the model's embedding has 257 rows, 0 to 256: use the tokenizer " +
      "that belongs to the model, or a model with rows for the tokens that were added.",
    code: 1,
  },
  {
    name: "Two tokens with one id",
    args: onModel,
    files: tokenizerIds({ a: 98 }),
    sentence:
      'error: The tokenizer in model/tokenizer.json can\'t be used: its tokens "a" and "b" have the same id, 98. Download the ' +
      "model's own again.",
    code: 1,
  },
  {
    name: "A row longer than the context",
    args: onModel,
    files: rows(`{"text":"fine"}\n{"text":"${"long ".repeat(20)}"}\n`),
    sentence:
      "error: rows.jsonl line 2 has 101 tokens and the model's context holds 64: shorten the row, or use --overflow cut or chunk.",
    code: 1,
  },
];

const inFolder = ["lowrank", "train", "--model", "model", "--data", "data", "--device", "cpu"];
const dataFile = (name: string, text: string) => async (folder: string) => {
  await Deno.mkdir(`${folder}/data`, { recursive: true });
  await Deno.writeTextFile(`${folder}/data/${name}`, text);
};

/** Data as `lowrank` reads it. */
export const folders = [
  {
    name: "A folder without train",
    args: inFolder,
    files: dataFile("valid.jsonl", '{"text":"a row"}\n'),
    sentence:
      "error: data has no train.jsonl or train.txt: give a folder with train, and optionally valid and test, or one file.",
    code: 1,
  },
  {
    name: "Two train files",
    args: inFolder,
    files: async (folder: string) => {
      await dataFile("train.jsonl", "")(folder);
      await dataFile("train.txt", "")(folder);
    },
    sentence: "error: data/train.jsonl and data/train.txt are both there: keep one of them.",
    code: 1,
  },
  {
    name: "A bad row",
    args: inFolder,
    files: dataFile("train.jsonl", '{"text":"fine"}\n{"text":\n'),
    sentence:
      "error: data/train.jsonl line 2 is not JSON (…): fix the line or remove it. Or skip such rows with --skip-bad-rows.",
    code: 1,
  },
  {
    name: "No good row",
    args: [...inFolder, "--skip-bad-rows"],
    files: dataFile("train.jsonl", "1\n2\n"),
    sentence:
      "error: data/train.jsonl has no row that can be used: all 2 are bad, the first because data/train.jsonl line 1 is 1: …",
    code: 1,
  },
  {
    name: "Rows longer than is asked for",
    args: [...inFolder, "--seq", "8"],
    files: dataFile("train.jsonl", '{"text":"longer than eight"}\n'),
    sentence:
      "error: data/train.jsonl line 1 has 18 tokens and seq allows 8: raise seq, shorten the row, or use --overflow cut or chunk.",
    code: 1,
  },
  {
    name: "Rows with a label packed",
    args: ["lowrank", "train", "--model", "model", "--data", "rows.jsonl", "--pack", "--steps", "1"],
    files: rows('{"text":"fine","label":"good"}\n'),
    sentence: "error: rows with a label can't share a row, which has one class: leave pack out.",
    code: 1,
  },
  {
    name: "Some rows with a label",
    args: inFolder,
    files: dataFile("train.jsonl", '{"text":"one"}\n{"text":"two","label":"b"}\n'),
    sentence:
      "error: data/train.jsonl mixes text (1), text and label (1): rows with a label teach a classifier, and then every row " +
      "needs one.",
    code: 1,
  },
  {
    name: "Rows to evaluate on that are of another kind than those to learn from",
    args: inFolder,
    files: async (folder: string) => {
      await dataFile("train.jsonl", '{"text":"one"}\n')(folder);
      await dataFile("valid.jsonl", '{"text":"two","label":"b"}\n')(folder);
    },
    sentence:
      'error: data/valid.jsonl has rows of text and label, and a language model needs others: give rows of {"text": …} or …',
    code: 1,
  },
  {
    name: "Labels for a model that is no classifier",
    args: inFolder,
    files: dataFile("train.jsonl", '{"text":"one","label":"a"}\n{"text":"two","label":"b"}\n'),
    sentence: "error: model/config.json is of the architecture gpt2…",
    code: 1,
  },
  {
    name: "Invalid labels, for a model that is not a classifier",
    args: inFolder,
    files: dataFile("train.jsonl", '{"text":"one","label":true}\n{"text":"two","label":null}\n'),
    sentence: "error: model/config.json is of the architecture gpt2, which generates text, and rows with a label…",
    code: 1,
  },
  {
    name: "A split that is not there",
    args: ["lowrank", "eval", "--model", "model", "--data", "data", "--split", "test", "--device", "cpu"],
    files: dataFile("train.jsonl", '{"text":"one"}\n'),
    sentence: "error: data has no test.jsonl or test.txt: choose another --split.",
    code: 1,
  },
];
