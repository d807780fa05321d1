/** How many answers were right, of as many as there are rows. */
export interface Score {
  /** Answers that are one JSON object with exactly the keys. */
  readonly keys: number;
  /** Answers whose values are all right, too. */
  readonly values: number;
  /** How many there were. */
  readonly of: number;
}

/** Scores answers to letters, one per row: only white space may stand around the JSON. */
export function scoreAnswers(
  answers: readonly string[],
  rows: readonly { readonly values: object }[],
): Score {
  let [keys, values] = [0, 0];
  rows.forEach((row, i) => {
    const wanted = Object.entries(row.values);
    const answer = parseObject(answers[i] ?? "");
    if (answer === null || Object.keys(answer).length !== wanted.length) return;
    if (!wanted.every(([key]) => Object.hasOwn(answer, key))) return;
    keys++;
    if (wanted.every(([key, value]) => answer[key] === value)) values++;
  });
  return { keys, values, of: rows.length };
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : null;
  } catch {
    return null; // an answer that is no JSON is a wrong answer, which the score counts
  }
}
