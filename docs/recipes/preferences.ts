// deno run --allow-read --allow-write=out docs/recipes/preferences.ts [PAIRS]
/** Pairs of answers as data that `lowrank train` reads: letters to a shop, and of two answers the short and polite one preferred. */
import { politePair } from "../../examples/preferences/preferences.ts";
import { rngFrom } from "../../data/rng.ts";

const count = Number(Deno.args[0] ?? 600);
const write = (name: string, split: "train" | "test", count: number, seed: number) => {
  const rng = rngFrom(seed);
  const rows = Array.from({ length: count }, () => politePair(rng, split));
  Deno.writeTextFileSync(`out/preferences/${name}.jsonl`, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
};
Deno.mkdirSync("out/preferences", { recursive: true });
write("train", "train", count, 1);
write("valid", "test", Math.ceil(count / 6), 2);
console.log(`out/preferences: ${count} pairs to learn from, ${Math.ceil(count / 6)} of unseen letters to measure on`);
