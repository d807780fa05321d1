/** `explain_module.ts FILE` prints the page that the module's export `explainThis` returns; exits with 1 after one line else. */
import { pathToFileURL } from "node:url";

const [file] = Deno.args;
try {
  const { explainThis } = await import(pathToFileURL(file).href);
  if (typeof explainThis !== "function") {
    throw new Error(
      "this module exports no explainThis; add three lines: " +
        'import { explain, newInput } from "@lowrank/lowrank"; ' +
        'const x = newInput({ shape: [128, 64], dtype: "f32" }); ' +
        "export const explainThis = () => explain(yourFunction)(x);",
    );
  }
  const page = await explainThis();
  if (typeof page !== "string") {
    throw new Error(
      `explainThis returned ${page === null ? "null" : typeof page}, not a page: let it return explain(f)(…)`,
    );
  }
  console.log(page);
} catch (error) {
  console.error((error as Error).message.split("\n")[0]);
  Deno.exit(1);
}
