/** Real tools to compare with: a Python that has them, in .cache/peers, which `deno task test:peers` brings by pip. */
import { assert } from "@std/assert";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { inFolder } from "../folder.ts";

/** The Python of the tools. */
const python = ".cache/peers/bin/python";

/** Why nothing can be compared, or null. */
const absent: string | null = pathKind(python) === null ? `${python} is not here (./task test:peers brings it)` : null;

/** Declares a test against a real tool; where that is not here, it counts as ignored and its name says so. */
export function peer(name: string, body: (folder: string) => Promise<void>, needs: string | null = null): void {
  const reason = absent ?? needs;
  Deno.test({
    name: reason === null ? name : `${name}: skipped, ${reason}`,
    ignore: reason !== null,
    fn: () => inFolder(body),
  });
}

/** Runs one of the scripts here on a job; what it prints. */
export async function runScript<T>(script: string, job: unknown): Promise<T> {
  const child = new Deno.Command(python, {
    args: [`${import.meta.dirname}/${script}`],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env: { HF_HUB_OFFLINE: "1", TRANSFORMERS_VERBOSITY: "error", TOKENIZERS_PARALLELISM: "false" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(job)));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  assert(code === 0, `${script} ended with ${code}:\n${new TextDecoder().decode(stderr).slice(-4000)}`);
  const text = new TextDecoder().decode(stdout);
  return (text === "" ? null : JSON.parse(text)) as T;
}

/** The float32 numbers that a script wrote. */
export function readFloats(path: string): Float32Array {
  return new Float32Array(Deno.readFileSync(path).buffer);
}

/** max|a - b| / max|b|. */
export function apart(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert(a.length === b.length, `${a.length} numbers beside ${b.length}`);
  let [most, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    most = Math.max(most, Math.abs(a[i] - b[i]));
    size = Math.max(size, Math.abs(b[i]));
  }
  return most / size;
}
