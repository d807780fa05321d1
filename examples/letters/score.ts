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

/** `JSON with exactly the keys 98 of 100, all values right 96 of 100`. */
export function describeScore({ keys, values, of }: Score): string {
  return `JSON with exactly the keys ${keys} of ${of}, all values right ${values} of ${of}`;
}

/** Letters with the answers before and after, for reading side by side. */
export function sideBySide(
  rows: readonly { readonly text: string }[],
  before: readonly string[],
  after: readonly string[],
): string {
  const line = (text: string) => {
    const flat = text.trim().replaceAll("\n", " ⏎ ");
    return flat.length > 200 ? `${flat.slice(0, 200)} …` : flat;
  };
  return rows.map(({ text }, i) =>
    `  letter   ${line(text)}\n    before ${line(before[i])}\n    after  ${line(after[i])}`
  ).join("\n");
}
