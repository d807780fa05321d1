// deno run --allow-read --allow-write=out docs/recipes/letters.ts [ROWS]
/** Letters with the answers wanted, as chats, in a folder that `lowrank train` reads: out/letters/{train,valid}.jsonl. */
import { heldOutRealLetters, realLetterRow } from "../../examples/letters/real.ts";
import { rngFrom } from "../../data/rng.ts";

const rows = Number(Deno.args[0] ?? 120);
const rng = rngFrom(0);
const write = (name: string, letters: readonly { messages: unknown }[]) =>
  Deno.writeTextFileSync(
    `out/letters/${name}.jsonl`,
    letters.map(({ messages }) => JSON.stringify({ messages })).join("\n"),
  );

Deno.mkdirSync("out/letters", { recursive: true });
write("train", Array.from({ length: rows }, () => realLetterRow(rng)));
const kept = heldOutRealLetters().slice(0, rows); // other names, cities, things and phrasings
write("valid", kept);
console.log(`out/letters: ${rows} letters to learn from, ${kept.length} held out`);
