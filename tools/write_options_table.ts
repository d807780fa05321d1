/** Writes the table of training options into docs/training.md. */
import { optionsTable } from "../train/options/config.ts";

const [begin, end] = ["<!-- options: written by `deno task docs:options` -->", "<!-- end of options -->"];

/** The page with the table as it is now. */
export function withOptions(page: string): string {
  const [from, to] = [page.indexOf(begin) + begin.length, page.indexOf(end)];
  return `${page.slice(0, from)}\n\n${optionsTable()}\n\n${page.slice(to)}`;
}

if (import.meta.main) {
  const path = "docs/training.md";
  await Deno.writeTextFile(path, withOptions(await Deno.readTextFile(path)));
}
