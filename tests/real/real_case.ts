/**
 * Tests that need a real model, downloaded by `./task model:smollm2` or `model:minilm`. Where the model, or the golden folder that
 * a test compares with, is not there, the test counts as ignored and its name says what is missing.
 */
import { pathKind } from "../../models/load/files/byte_source.ts";
import { type GoldenCase, goldenCase } from "../goldens/golden_case.ts";

/** SmolLM2-135M-Instruct. */
export const smollm2 = ".cache/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/** The folder of all-MiniLM-L6-v2. */
export const minilm = ".cache/minilm";

/** A folder of golden cases; the first argument, where one is given. */
const goldens = Deno.args[0] ?? `${import.meta.dirname}/../goldens/real`;

/** Declares a test that reads a model, SmolLM2 unless another is named, and the golden case `needs`. */
export function real(
  name: string,
  needs: string,
  body: (golden: GoldenCase) => void | Promise<void>,
  model = smollm2,
): void {
  const absent = [model, `${goldens}/${needs}`].find((path) => pathKind(path) === null);
  const title = absent === undefined
    ? name
    : `${name}: skipped, ${absent} is not here (./task model:${model.split("/")[1]} brings the model)`;
  Deno.test({ name: title, ignore: absent !== undefined, fn: () => body(goldenCase(goldens, needs)) });
}
