import { holdTokenizer } from "./tokenizer_rows.ts";

const folder = new URL("tokenizers/", import.meta.url);

for (const file of [...Deno.readDirSync(folder)].map(({ name }) => name).sort()) {
  const name = file.replace(".json", "");
  Deno.test(`tokenizers in the style of ${name}: ids, offsets and texts are the reference's`, () => {
    holdTokenizer(name, JSON.parse(Deno.readTextFileSync(new URL(file, folder))));
  });
}
