/** The project's own files, by their paths from its root. */
const root = new URL("../", import.meta.url);

/** The TypeScript files of a folder and of those within it. */
export function* filesUnder(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, root))) {
    if (isDirectory) yield* filesUnder(`${folder}${name}/`);
    else if (name.endsWith(".ts")) yield `${folder}${name}`;
  }
}

/** A file's text. */
export const textOf = (file: string): string => Deno.readTextFileSync(new URL(file, root));
