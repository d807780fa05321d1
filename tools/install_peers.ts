/**
 * Brings the tools that `deno task test:peers` compares with into `.cache/peers`, a virtual environment of Python: PEFT,
 * transformers, PyTorch, bitsandbytes and mlx-lm, and llama.cpp, which pip compiles. Some gigabytes and minutes at first, nothing on a second run.
 */
import { FileError } from "../core/errors.ts";
import { pathKind } from "../models/load/files/byte_source.ts";
import { reportErrors } from "../report/errors.ts";

const place = ".cache/peers";
const python = `${place}/bin/python`;
const requirements = new URL("../tests/peers/requirements.txt", import.meta.url).pathname;

/** Whether a command ends well; with its output shown where `shown`. */
function succeeds(command: string, args: readonly string[], shown = false): boolean {
  const stream = shown ? "inherit" : "null";
  try {
    return new Deno.Command(command, { args: [...args], stdout: stream, stderr: stream }).outputSync().success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

await reportErrors(() => {
  const imports = "import llama_cpp, peft, transformers, torch, numpy, sentencepiece";
  if (pathKind(python) !== null && succeeds(python, ["-c", imports])) return Promise.resolve();
  console.error(
    `peers: bringing PEFT, transformers, PyTorch, bitsandbytes, mlx-lm and llama.cpp into ${place}; this takes minutes`,
  );
  const base = ["python3", "python"].find((name) => succeeds(name, ["--version"]));
  if (base === undefined) throw new FileError("There is no python3 here: install Python 3.10 or later.");
  const made = pathKind(python) !== null || succeeds(base, ["-m", "venv", place], true);
  const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements];
  if (!made || !succeeds(python, pip, true) || !succeeds(python, ["-c", imports], true)) {
    throw new FileError(
      `The packages of tests/peers/requirements.txt can't be had here: look at pip's words above. llama-cpp-python is ` +
        `compiled, for which a C++ compiler is needed.`,
    );
  }
  return Promise.resolve();
});
