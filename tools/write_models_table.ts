/** Writes the table of architectures into docs/models.md. */
import { families } from "../models/families/mod.ts";

const [begin, end] = ["<!-- architectures: written by `deno task docs:models` -->", "<!-- end of architectures -->"];

/** The page with the table as it is now. */
export function withModels(page: string): string {
  const [from, to] = [page.indexOf(begin) + begin.length, page.indexOf(end)];
  const rows = families.map(({ modelType, models, own, gguf }) => {
    const note = gguf !== undefined && gguf.name !== modelType ? ` (as \`${gguf.name}\`)` : "";
    return `| \`${modelType}\` | ${models} | ${own} | ${gguf === undefined ? "no" : `yes${note}`} |`;
  });
  return `${page.slice(0, from)}

| \`model_type\` | models | what is special | .gguf |
| --- | --- | --- | --- |
${rows.join("\n")}

${page.slice(to)}`;
}

if (import.meta.main) {
  const path = "docs/models.md";
  await Deno.writeTextFile(path, withModels(await Deno.readTextFile(path)));
}
