/** What a small or a strange file can make the reader of texts do: nothing but one sentence. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FileError } from "../../../core/errors.ts";
import { parseJsonObject, readText } from "./byte_source.ts";

Deno.test("a text is read from a file of a text's size, and from nothing else", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const refused = (path: string, sentence: string) => assertThrows(() => readText(path), FileError, sentence);
    Deno.writeTextFileSync(`${folder}/text`, "twö");
    assertEquals(readText(`${folder}/text`), "twö");
    Deno.writeFileSync(`${folder}/bytes`, Uint8Array.of(0xff));
    refused(`${folder}/bytes`, "is not UTF-8 text");
    refused(`${folder}/none`, "There is no file");
    refused(folder, "is a folder");
    const sparse = Deno.createSync(`${folder}/sparse`);
    sparse.truncateSync(20 * 2 ** 30);
    sparse.close();
    refused(`${folder}/sparse`, "has 21474836480 bytes, and at most");
    if (Deno.build.os !== "windows") refused("/dev/zero", "is a device or a pipe");
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("JSON is read to a depth that no model's file reaches; brackets in texts do not count", () => {
  const nested = (depth: number) => `{"a":${"[".repeat(depth - 1)}${"]".repeat(depth - 1)}}`;
  assert("a" in parseJsonObject(nested(200), "f"));
  assertThrows(() => parseJsonObject(nested(201), "f"), FileError, "f nests 201 lists and objects in each other");
  assertThrows(() => parseJsonObject(nested(1e6), "f"), FileError, "nests 1000000");
  assertThrows(() => parseJsonObject('{"a":'.repeat(1e5), "f"), FileError, "nests 100000");
  const text = '[{"\\\\'.repeat(1000);
  assertEquals(parseJsonObject(JSON.stringify({ text }), "f"), { text });
});

Deno.test("brackets count outside of strings alone, and a string may be long", () => {
  const long = "x".repeat(2e7), brackets = "[".repeat(300);
  for (const text of [long, brackets, `\\"${brackets}`, `\\\\`, `${"\\\\".repeat(1e6)}\\"${brackets}`]) {
    assertEquals(parseJsonObject(`{"a":"${text}"}`, "a.json"), { a: JSON.parse(`"${text}"`) });
  }
  assertThrows(() => parseJsonObject(`{"a\\"":${brackets}`, "a.json"), FileError, "nests 301 lists and objects");
});
