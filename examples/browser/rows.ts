/** Rows that somebody pasted: JSON Lines with `prompt` and `completion`, or lines of `prompt => completion`. */
import type { PairRow } from "./messages.ts";

/** Reads pasted rows. Throws an Error that names the line which is neither. */
export function parseRows(text: string): PairRow[] {
  const lines = text.split("\n").map((line, i) => ({ line: line.trim(), number: i + 1 })).filter(({ line }) => line);
  if (lines.length === 0) throw new Error("There are no rows yet: write one a line, prompt => completion.");
  return lines.map(({ line, number }) => line.startsWith("{") ? parseJson(line, number) : parseArrow(line, number));
}

function parseArrow(line: string, number: number): PairRow {
  const [prompt, ...rest] = line.split("=>");
  const completion = rest.join("=>").trim();
  if (!completion) throw new Error(`Line ${number} has no " => ": write prompt => completion.`);
  return { prompt: `${prompt.trim()} `, completion };
}

function parseJson(line: string, number: number): PairRow {
  let row: Record<string, unknown>;
  try {
    row = JSON.parse(line);
  } catch (error) {
    throw new Error(`Line ${number} is not JSON (${(error as Error).message}).`);
  }
  const { prompt, completion } = row;
  if (typeof prompt !== "string" || typeof completion !== "string") {
    throw new Error(`Line ${number} has no "prompt" and "completion" of text.`);
  }
  return { prompt, completion };
}
