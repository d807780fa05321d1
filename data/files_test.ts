import { assert, assertEquals, assertThrows } from "@std/assert";
import { makeTokenizer } from "../models/load/tokenizer.ts";
import { byteTokenizerConfig, byteTokenizerFile } from "./byte_tokenizer.ts";
import { DataError, FileError } from "../core/errors.ts";
import type { Example, TextTokenizer } from "./examples.ts";
import { findSplits } from "./files.ts";
import type { DataOptions, DataSet } from "./data_set.ts";
import { inFolder } from "../tests/folder.ts";
import { classification } from "../train/objectives/classification.ts";
import { labelsOf, openData } from "../train/objectives/mod.ts";

/** One token a byte; 256 ends. */
const bytewise: TextTokenizer = makeTokenizer({
  path: "bytes",
  tokenizer: byteTokenizerFile(),
  config: byteTokenizerConfig(),
  chatTemplate: "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}" +
    "{% if add_generation_prompt %}<assistant>{% endif %}",
});

type Content = string | Uint8Array<ArrayBuffer>;

/** Opens files that are written for this, and looks at the first. */
function withFiles<T>(files: Record<string, Content>, use: (folder: string) => T): T {
  return inFolder((folder) => {
    for (const [name, content] of Object.entries(files)) {
      Deno.writeFileSync(
        `${folder}/${name}`,
        typeof content === "string" ? new TextEncoder().encode(content) : content,
      );
    }
    return use(folder);
  });
}

function load<T>(name: string, content: Content, use: (data: DataSet) => T, options: Partial<DataOptions> = {}): T {
  return withFiles({ [name]: content }, (folder) => {
    using data = openData(`${folder}/${name}`, bytewise, { context: 64, ...options });
    return use(data);
  });
}

const all = (data: DataSet): (Example | undefined)[] => Array.from({ length: data.length }, (_, i) => data.at(i));
const texts = (data: DataSet) =>
  all(data).map((row) => row && String.fromCharCode(...row.ids.filter((id) => id < 256)));

const mixed =
  '{"text":"one"}\n\n{"prompt":"p","completion":"c"}\r\n{"messages":[{"role":"assistant","content":"hi"}]}\n';

Deno.test("a file of rows may mix kinds and hold empty lines; the format is reported", () => {
  load("rows.jsonl", mixed, (data) => {
    assertEquals(data.length, 3);
    assertEquals(data.format, "text (1), prompt and completion (1), chat (1)");
  });
  load("rows.jsonl", '{"prompt":"p","completion":"c"}', (data) => assertEquals(data.format, "prompt and completion"));
});

Deno.test("a line too long to hold is refused by its number, or left out where bad rows are", () => {
  const long = `{"text":"${"x".repeat(2 ** 22)}"}`;
  for (const content of [`{"text":"one"}\n${long}\n{"text":"two"}\n`, `{"text":"one"}\n{"text":"two"}\n${long}`]) {
    const line = content.endsWith("}") ? 3 : 2;
    for (const streamAbove of [0, 2 ** 40]) {
      const refused = `line ${line} has more than 4 MB: give one row per line.`;
      assertThrows(() => load("rows.jsonl", content, all, { streamAbove }), DataError, refused);
      load("rows.jsonl", content, (data) => {
        assertEquals(texts(data), ["one", "two"]);
        assertEquals(data.skipped.count, 1);
      }, { streamAbove, skipBadRows: true });
    }
  }
});

Deno.test("a text is cut into runs of the context's length, the last one shorter", () => {
  load("text.txt", "abcdefghi", (data) => {
    assertEquals(all(data).map((r) => r!.ids), [[97, 98, 99, 100], [101, 102, 103, 104], [105, 256]]);
    assertEquals(data.format, "plain text");
  }, { context: 4 });
});

Deno.test("bad data is refused with the file, the line and the remedy", () => {
  const cases: [string, Content, string][] = [
    ["rows.jsonl", "", "rows.jsonl is empty"],
    ["rows.jsonl", " \n\n", "rows.jsonl is empty"],
    ["rows.jsonl", '{"text":"a"}\n{"text":\n', "rows.jsonl line 2 is not JSON"],
    [
      "rows.jsonl",
      '{"text":"a"}\n\n{"txt":"b"}\n',
      'rows.jsonl line 3 is an object with the keys ["txt"]: a row is {"text"',
    ],
    ["rows.jsonl", '{"text":7}', "its text is the number 7; a row is"],
    ["rows.jsonl", '{"Prompt":"a","Completion":"b"}', '"Prompt" is called "prompt" here, "Completion" is called'],
    ["rows.jsonl", '{"instruction":"a","output":"b"}', 'write instruction and input into "prompt"'],
    ["rows.jsonl", '{"prompt":"a","chosen":"b"}', 'a preference has "chosen" and "rejected"'],
    ["rows.jsonl", '{"prompt":"a","chosen":"b","rejected":7}', 'a preference has "chosen" and "rejected"'],
    ["rows.jsonl", '{"chosen":"b","rejected":"c"}', "line 1 has no prompt, and its chosen and rejected texts begin"],
    ["rows.jsonl", '{"text":"a","label":1e999}', "its label is the number Infinity; a row is"],
    [
      "rows.jsonl",
      '{"sentence1":"a","sentence2":"b","score":1e999}',
      'an object with the keys ["sentence1","sentence2","score"]: a row is',
    ],
    [
      "rows.jsonl",
      '{"prompt":"a","chosen":"b","rejected":"c","margin":"x"}',
      'line 1 has the margin "x": give a number',
    ],
    [
      "rows.jsonl",
      '{"prompt":"a","chosen":"b","rejected":"c"}\n{"text":"d"}',
      "mixes preference (1), text (1): rows of pref",
    ],
    [
      "rows.jsonl",
      '{"conversations":[{"from":"alien","value":"a"}],"chosen":"b","rejected":"c"}',
      'line 1 has a turn from "alien": give one of human, user, gpt',
    ],
    [
      "rows.jsonl",
      '{"question":"a","answer":"b"}',
      '"question" is called "prompt" here, "answer" is called "completion"',
    ],
    ["rows.jsonl", '{"prompt":[],"completion":[]}', 'go into one list: {"messages": […]}'],
    ["rows.jsonl", '[{"text":"a"}]', "line 1 is a list: a .jsonl file has one object per line"],
    ["rows.jsonl", '[\n{"text":"a"}\n]', "line 1 begins a list: a .jsonl file has one object per line"],
    ["rows.json", "[]", "jq -c '.[]' makes lines of a JSON array"],
    ["rows.jsonl", '{"messages":[{"role":"user","content":7}]}', "line 1 is an object"],
    [
      "rows.jsonl",
      '{"messages":[{"role":"user","content":"x"}]}',
      'line 1: a chat to learn from must end with an "assistant"',
    ],
    ["rows.jsonl", "null", "line 1 is null"],
    ["rows.jsonl", '{"text":""}', "line 1 has nothing to learn (1 tokens)"],
    [
      "rows.jsonl",
      JSON.stringify({ text: "x".repeat(64) }),
      "line 1 has 65 tokens and the model's context holds 64: shorten",
    ],
    ["rows.jsonl", new Uint8Array([123, 125, 10, 0xc3, 0x28]), "line 1 is an object with the keys []"],
    ["rows.jsonl", new Uint8Array([0x20, 10, 0xc3, 0x28]), "line 2 is not UTF-8"],
    ["text.txt", new Uint8Array([97, 10, 0xc3, 0x28]), "line 2 is not UTF-8"],
    ["rows.jsonl", '{"text":"a"}\n{"text":"b","label":"c"}', "mixes text (1), text and label (1)"],
    ["rows.csv", "a,b", "must end in .jsonl"],
  ];
  for (const streamAbove of [undefined, 0]) {
    for (const [name, content, sentence] of cases) {
      if (streamAbove === 0 && /tokens|must end|is empty/.test(sentence)) continue; // reported when the row is asked for
      assertThrows(() => load(name, content, all, { streamAbove }), DataError, sentence);
    }
  }
  assertThrows(() => openData("absent.txt", bytewise, { context: 4 }), FileError, "There is no file absent.txt");
  assertThrows(
    () => withFiles({ "a.txt": "a" }, (f) => openData(`${f}/a.txt`, { ...bytewise, eosId: null }, { context: 4 })),
    DataError,
    "a.txt is too short: it has 1 token",
  );
});

Deno.test("bad rows are left out where that is asked for, counted, and named", () => {
  const content = '{"text":"a"}\n{"txt":1}\n{"text":""}\nnull\n{"text":"b"}\n{';
  for (const streamAbove of [undefined, 0]) {
    load("rows.jsonl", content, (data) => {
      assertEquals(texts(data).filter((text) => text !== undefined), ["a", "b"]);
      assertEquals(data.skipped.count, 4);
      assertEquals(data.skipped.first.map((sentence) => /line (\d)/.exec(sentence)![1]), ["2", "4", "6"]);
      assertEquals(all(data).length, data.length);
      assertEquals(data.skipped.count, 4, "a row is counted once");
    }, { skipBadRows: true, streamAbove });
  }
  assertThrows(
    () => load("rows.jsonl", "1\n2\n", all, { skipBadRows: true }),
    DataError,
    "no row that can be used: all 2 are bad, the first because",
  );
});

Deno.test("a streamed file gives the rows that one in memory gives", () => {
  const rows = Array.from({ length: 200 }, (_, i) => JSON.stringify({ text: `row ${i} é` })).join("\n\n");
  for (const content of [rows, `${rows}\n`, mixed]) {
    const held = load("rows.jsonl", content, (data) => ({ rows: all(data), hash: data.hash, format: data.format }));
    load("rows.jsonl", content, (data) => {
      assert(data.streamed);
      assertEquals({ rows: all(data), hash: data.hash, format: data.format }, held);
    }, { streamAbove: 0 });
  }
});

Deno.test("a streamed text loses nothing and its pieces fit the context", () => {
  const text = `short\nlonger line here\n\na${"ä".repeat(40)} and ${"x".repeat(90)}\nend`;
  load("text.txt", text, (data) => {
    const pieces = all(data).map((row) => row!.ids.filter((id) => id < 256));
    assertEquals(new TextDecoder().decode(Uint8Array.from(pieces.flat())), text);
    assert(pieces.every(({ length }) => length <= 30));
    for (const piece of pieces) new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(piece));
    assertEquals(all(data).at(-1)!.ids.at(-1), 256);
  }, { context: 32, streamAbove: 0 });
});

Deno.test("a streamed line is cut before words where there are some, and never within a character", () => {
  const pieces = (text: string, context: number) => {
    let found: string[] = [];
    load("text.txt", text, (data) => {
      const decoder = new TextDecoder("utf-8", { fatal: true });
      found = all(data).flatMap((row) =>
        row === undefined ? [] : decoder.decode(Uint8Array.from(row.ids.filter((id) => id < 256)))
      );
    }, { context, streamAbove: 0 });
    return found;
  };
  assertEquals(pieces("one two three\nfour", 10), ["one two", " three\n", "four"]);
  assertEquals(pieces("größenmäßig", 7), ["grö", "ßenm", "äßi", "g"]);
  assertEquals(pieces("ä€😀ä", 3), ["ä", "€", "😀", "ä"]);
});

Deno.test("labels become classes, in one order for all files", () => {
  const content = [{ text: "a", label: "spam" }, { text: "b", label: "ham" }].map((row) => JSON.stringify(row)).join(
    "\n",
  );
  load("train.jsonl", content, (data) => {
    assertEquals([data.format, data.classes], ["text and label (2 classes)", ["ham", "spam"]]);
    assertEquals(all(data).map((row) => row!.label), [1, 0]);
  });
  load(
    "train.jsonl",
    '{"text":"a","label":10}\n{"text":"a","label":9}',
    (data) => assertEquals(data.classes, ["9", "10"]),
  );
  assertThrows(
    () => load("valid.jsonl", '{"text":"a","label":"eggs"}', all, { classes: ["ham", "spam"] }),
    DataError,
    'line 1: the label "eggs" is not one of the model\'s classes ham, spam: give one of these, or its number from 0 to 1.',
  );
  load("valid.jsonl", '{"text":"a","label":"1"}\n{"text":"b","label":0}', (data) => {
    assertEquals(all(data).map((row) => row!.label), [1, 0]);
  }, { classes: ["ham", "spam"] });
  assertThrows(
    () => load("valid.jsonl", '{"text":"a","label":1}', all, { classes: ["0", "7"] }),
    DataError,
    'the label "1" is not one of the model\'s classes 0, 7',
  );
});

Deno.test("a row that is too long is cut or made several, of which those that teach nothing are left out", () => {
  const long = { prompt: "x".repeat(9), completion: "abcdefgh" };
  const content = [{ prompt: "p", completion: "q" }, long, { prompt: "y".repeat(12), completion: "z" }]
    .map((row) => JSON.stringify(row)).join("\n");
  for (const streamAbove of [undefined, 0]) {
    const read = (overflow: "cut" | "chunk", more = {}) => {
      let found: { rows: (string | undefined)[]; skipped: number } = { rows: [], skipped: 0 };
      load("rows.jsonl", content, (data) => {
        const rows = all(data).map((row) => row && String.fromCharCode(...row.ids.filter((id) => id < 256)));
        found = { rows, skipped: data.skipped.count };
      }, { streamAbove, seq: 10, overflow, skipBadRows: true, ...more });
      return found;
    };
    // The last row's first ten tokens are prompt: of it nothing is learned.
    assertEquals(read("cut").rows.filter((row) => row !== undefined), ["pq", "xxxxxxxxxa"]);
    assertEquals(read("cut").skipped, 1);
    assertEquals(read("chunk").rows, ["pq", "xxxxxxxxxa", "bcdefgh", "yyz"]);
    assertEquals(read("chunk").skipped, 0);
    assertThrows(
      () => read("cut", { skipBadRows: false }),
      DataError,
      "line 3 has nothing to learn (14 tokens, cut to 10)",
    );
    load("rows.jsonl", '{"text":"abcdefghijkl","label":"b"}\n{"text":"abc","label":"a"}', (data) => {
      assertEquals(all(data).map((row) => [row!.ids.length, row!.label]), [[10, 1], [3, 0]]);
    }, { streamAbove, seq: 10, overflow: "cut" });
    assertThrows(
      () => load("rows.jsonl", '{"text":"abcdefghijkl","label":"b"}', all, { streamAbove, seq: 10, overflow: "chunk" }),
      DataError,
      "12 tokens and one label, so it can't become several rows: take --overflow cut",
    );
  }
});

Deno.test("a folder has train, and valid and test where they are there", () => {
  withFiles({ "train.jsonl": "", "valid.txt": "" }, (folder) => {
    assertEquals(findSplits(folder), { train: `${folder}/train.jsonl`, valid: `${folder}/valid.txt`, test: undefined });
    assertEquals(findSplits(`${folder}/valid.txt`), { train: `${folder}/valid.txt` });
  });
  withFiles({ "train.jsonl": "", "train.txt": "" }, (folder) => {
    assertThrows(() => findSplits(folder), DataError, "train.txt are both there: keep one of them");
  });
  withFiles({}, (folder) => assertThrows(() => findSplits(folder), DataError, "has no train.jsonl or train.txt"));
  assertThrows(() => findSplits("absent"), DataError, "There is no file or folder absent: give --data");
  for (const name of ["validation.jsonl", "val.txt", "dev.jsonl", "eval.jsonl"]) {
    withFiles({ "train.jsonl": "", [name]: "" }, (folder) => {
      assertEquals(findSplits(folder).valid, `${folder}/${name}`);
      assertEquals(findSplits(`${folder}/train.jsonl`), {
        train: `${folder}/train.jsonl`,
        besides: `${folder}/${name}`,
      });
    });
  }
  withFiles(
    { "train.jsonl": "", "valid.jsonl": "", "val.jsonl": "" },
    (folder) => assertThrows(() => findSplits(folder), DataError, "val.jsonl are both there: keep one of them"),
  );
});

Deno.test("a text of more than 4 MB and rows of more than 16 MB are read as they are needed", () => {
  const cases = [["text.txt", "a line of some text\n", 22], [
    "rows.jsonl",
    '{"text":"a row of some text"}\n',
    24,
  ]] as const;
  for (const [name, line, bits] of cases) {
    for (const [lines, streamed] of [[1000, false], [2 ** bits / line.length + 1, true]] as const) {
      load(name, line.repeat(lines), (data) => assertEquals(data.streamed, streamed));
    }
  }
});

Deno.test("rows whose labels can't be used are rows with labels all the same", async () => {
  const path = await Deno.makeTempFile({ suffix: ".jsonl" });
  try {
    const cases: [string, string[] | null][] = [
      ['{"text":"one","label":true}\n{"text":"two","label":null}\n', []],
      // Numbers, and not the names of classes.
      ['{"text":"one","label":1.5}\n{"text":"two","label":3}\n', null],
      ['{"text":"\\"label\\": none"}\n', null],
      ['{"txt":"one"}\n', null],
      ["", null],
    ];
    for (const [text, labels] of cases) {
      await Deno.writeTextFile(path, text);
      assertEquals(labelsOf(path), labels, text);
    }
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a file of other rows than its objective's is refused with the rows that it needs", () => {
  const needed = 'a classifier needs others: give rows of {"text": …, "label": …}.';
  withFiles({ "a.txt": "some text", "a.jsonl": '{"text":"some text"}\n' }, (folder) => {
    for (const [path, what] of [["a.txt", "is plain text"], ["a.jsonl", "has rows of text"]]) {
      for (const streamAbove of [undefined, 0]) {
        const options = { context: 16, classes: ["a"], streamAbove, objective: classification };
        const open = () => openData(`${folder}/${path}`, bytewise, options);
        assertThrows(open, DataError, `${path} ${what}, and ${needed}`);
      }
    }
  });
});
