/** How many words are remembered, and of how many UTF-16 code units at most. */
const maxWords = 2 ** 15, longest = 64;

/** A function of words that remembers its results: in a text the same words come again and again. */
export function memoize<T>(make: (word: string) => T): (word: string) => T {
  const known = new Map<string, T>();
  return (word) => {
    const before = known.get(word);
    if (before !== undefined) return before;
    const made = make(word);
    if (known.size >= maxWords) known.clear();
    if (word.length <= longest) known.set(word, made);
    return made;
  };
}
