/** What a tokenizer.json may do to a text's length, and how many steps it may have. */

/** The most steps of a pipeline, and the most that all of them together may make of one character. */
const maxSteps = 64, maxGrowth = 4096;

/**
 * Refuses a normaliser, splitter or decoder of more steps than any model has, or whose replacements of replacements grow: a
 * file of some kilobytes could ask for any length.
 *
 * @throws {Error} with the number
 */
export function refuseGrowth(config: unknown, what: string): void {
  let steps = 0;
  const lengthOf = (text: unknown) => typeof text === "string" ? Math.max(1, text.length) : 1;
  const growthOf = (value: unknown): number => {
    if (Array.isArray(value)) return value.reduce((growth, entry) => growth * growthOf(entry), 1);
    const { type, content, prepend, replacement, normalizers, pretokenizers, decoders } = Object(value);
    if (type === "Sequence") return growthOf(normalizers ?? pretokenizers ?? decoders);
    if (++steps > maxSteps) throw new Error(`${what} has more than ${maxSteps} steps`);
    if (type === "ByteLevel") return 2; // a character of two bytes becomes two characters, of which each may be one again
    return lengthOf(content) * lengthOf(prepend) * lengthOf(replacement);
  };
  const growth = growthOf(config ?? []);
  if (growth > maxGrowth) {
    throw new Error(`${what} makes up to ${growth} characters of one, and at most ${maxGrowth} are allowed`);
  }
}
