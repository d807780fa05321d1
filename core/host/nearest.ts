import { closestMatch } from "leven";

/** The candidate nearest to `word` by edit distance, or null when nothing is near enough to suggest. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  return closestMatch(word, [...candidates], { maxDistance: Math.max(2, Math.ceil(word.length / 2)) }) ?? null;
}
