/** A module in a folder of its own, beside a deno.json that knows the library. */
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** A module whose explained function reads one input with the given aval. */
export function makeModule(aval: string) {
  const folder = Deno.makeTempDirSync({ prefix: "lowrank-editor-" });
  const library = pathToFileURL(resolve(fileURLToPath(new URL("../../mod.ts", import.meta.url)))).href;
  Deno.writeTextFileSync(join(folder, "deno.json"), JSON.stringify({ imports: { "@lowrank/lowrank": library } }));
  const file = join(folder, "explained.ts");
  const writeText = (text: string) => Deno.writeTextFileSync(file, text);
  const write = (aval: string) =>
    writeText(
      'import { explain, matmul, newInput, transpose } from "@lowrank/lowrank";\n' +
        `const x = newInput({ ${aval}, dtype: "f32" });\n` +
        "export const explainThis = () => explain((x) => matmul(x, transpose(x, [1, 0])))(x);\n",
    );
  write(aval);
  return { folder, file, write, writeText, [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }) };
}
