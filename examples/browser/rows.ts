/** Rows that somebody pasted: JSON Lines with `prompt` and `completion`, or lines of `prompt => completion`. */
import type { PairRow } from "./messages.ts";

/** Reads pasted rows; a completion after an arrow begins with a space. Throws an Error that names the line which is neither. */
export function parseRows(text: string): PairRow[] {
  const lines = text.split("\n").map((line, i) => ({ line: line.trim(), number: i + 1 })).filter(({ line }) => line);
  if (lines.length === 0) throw new Error("There are no rows yet: write one a line, prompt => completion.");
  return lines.map(({ line, number }) => line.startsWith("{") ? parseJson(line, number) : parseArrow(line, number));
}

function parseArrow(line: string, number: number): PairRow {
  const at = line.indexOf("=>");
  if (at < 0) throw new Error(`Line ${number} has no " => ": write prompt => completion.`);
  const [prompt, completion] = [line.slice(0, at).trim(), line.slice(at + 2).trim()];
  if (!prompt) throw new Error(`Line ${number} has no prompt before its " => ".`);
  if (!completion) throw new Error(`Line ${number} has nothing to learn after its " => ".`);
  return { prompt, completion: ` ${completion}` };
}

function parseJson(line: string, number: number): PairRow {
  const form = 'write {"prompt": "…", "completion": "…"}';
  let row: Record<string, unknown>;
  try {
    row = JSON.parse(line);
  } catch {
    throw new Error(`Line ${number} begins with { and is no JSON: ${form} on one line.`);
  }
  const { prompt, completion } = row;
  if (typeof prompt !== "string" || typeof completion !== "string") {
    throw new Error(`Line ${number} lacks the text of a "prompt" or a "completion": ${form}.`);
  }
  if (!prompt.trim() || !completion.trim()) throw new Error(`Line ${number} has an empty "prompt" or "completion".`);
  return { prompt, completion };
}
