/** The error for a line that is not a row: how it becomes one, where it is another tool's kind of row. */

type Json = Readonly<Record<string, unknown>>;

const has = (row: Json, ...keys: readonly string[]) => keys.every((key) => row[key] !== undefined);

/** Rows of other formats, by what they have, and how they are written here. */
const others: readonly { fits(row: Json): boolean; remedy: string }[] = [
  {
    fits: (row) => has(row, "conversations") || has(row, "conversation"),
    remedy:
      'call the list "conversations", and give each of it "from" (human, gpt or system) and "value", both of them texts; or call ' +
      'it "messages", with "role" and "content"',
  },
  {
    fits: (row) => has(row, "chosen") || has(row, "rejected"),
    remedy:
      'a preference has "chosen" and "rejected", each a text or messages, and a "prompt" where these do not begin with it',
  },
  {
    fits: (row) => has(row, "instruction", "output"),
    remedy: 'write instruction and input into "prompt" and the output into "completion"',
  },
  {
    fits: ({ prompt, completion }) => Array.isArray(prompt) || Array.isArray(completion),
    remedy:
      'messages of a prompt and of its completion each have "role" and "content"; or they go into one list: {"messages": […]}',
  },
];

/** Keys that some tools give a prompt or a completion, or a class. */
const synonyms: Readonly<Record<string, readonly string[]>> = {
  prompt: ["instruction", "input", "question", "query", "source"],
  completion: ["output", "answer", "response", "target", "chosen", "reply"],
  text: ["content", "sentence", "document"],
  label: ["labels", "class", "category"],
  messages: ["chat", "dialog", "dialogue", "turns"],
};

/** What a row may be: the forms of all that is learned. */
function describeForms(forms: readonly string[]): string {
  const list = [forms.slice(0, -1).join(", "), ...forms.slice(-1)].filter((part) => part !== "").join(" or ");
  return `a row is ${list}, all of them strings; a label may be a whole number`;
}

/** The rest of a sentence that begins with the line's place and "is": what stands there, and how it becomes a row. */
export function describeMisfit(value: unknown, forms: readonly string[]): string {
  const rows = describeForms(forms);
  if (Array.isArray(value)) return `a list: ${onePerLine}`;
  if (typeof value !== "object" || value === null) return `${JSON.stringify(value).slice(0, 60)}: ${rows}`;
  const row = value as Json;
  const keys = Object.keys(row);
  return `an object with the keys ${JSON.stringify(keys.slice(0, 12))}: ${remedyOf(row, keys, rows)}`;
}

/** How a file that is one JSON array becomes lines. */
export const onePerLine =
  "a .jsonl file has one object per line, without brackets and commas around them (jq -c '.[]' makes them of an array)";

function remedyOf(row: Json, keys: readonly string[], rows: string): string {
  const other = others.find(({ fits }) => fits(row));
  if (other) return other.remedy;
  const wrong = ["text", "prompt", "completion", "label", "messages"].filter((key) => has(row, key));
  const renamed = keys.flatMap((key) => {
    const ours = Object.keys(synonyms).find((name) =>
      name !== key && !wrong.includes(name) &&
      (name === key.toLowerCase() || synonyms[name].includes(key.toLowerCase()))
    );
    return ours === undefined ? [] : [`${JSON.stringify(key)} is called ${JSON.stringify(ours)} here`];
  });
  if (renamed.length > 0) return `${renamed.join(", ")}; ${rows}`;
  const typed = wrong.filter((key) => key !== "messages" && typeof row[key] !== "string");
  if (typed.length > 0) return `${typed.map((key) => `its ${key} is ${kindOf(row[key])}`).join(", ")}; ${rows}`;
  return rows;
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  // JSON.stringify calls a number too large for a double null.
  const text = typeof value === "number" ? String(value) : JSON.stringify(value);
  return typeof value === "object" ? "an object" : `the ${typeof value} ${text}`;
}
