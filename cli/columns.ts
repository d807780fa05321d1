/** Tables of text, as narrow as their contents. */

/** Rows as aligned columns, two spaces apart. Columns whose every cell but the heading is a number stand on the right. */
export function columns(rows: readonly (readonly string[])[], heading?: readonly string[]): string[] {
  const all = heading ? [heading, ...rows] : rows;
  const widths = (all[0] ?? []).map((_, i) => Math.max(...all.map((row) => row[i].length)));
  const numeric = widths.map((_, i) => rows.length > 0 && rows.every((row) => /^[-\d.,e+]*$/.test(row[i])));
  return all.map((row) =>
    row.map((cell, i) => numeric[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])).join("  ").trimEnd()
  );
}

/** The layer's number in a path as `*`, so that equal modules of all layers are one line. */
export function withoutLayer(path: string): string {
  return path.replace(/\.\d+(?=\.|$)/g, ".*");
}

/** Things that are alike in all but the layer's number, with how many there are. */
export function alike<T>(items: readonly T[], key: (item: T) => string): { first: T; count: number }[] {
  return [...Map.groupBy(items, key).values()].map((group) => ({ first: group[0], count: group.length }));
}
