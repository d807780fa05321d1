/**
 * The golden cases of one folder, on every runtime: `deno task test:goldens [DIR]`. DIR is a case or a folder of cases, by
 * default the one here. A case is run, or listed with the reason why not; one that is neither fails.
 */
import { runtimes } from "../runtimes.ts";
import { withoutWebGpu } from "../devices.ts";
import { casesUnder, type GoldenCase } from "./golden_case.ts";
import { kindOf, reasonToSkip } from "./kinds.ts";

const folder = Deno.args[0] ?? `${import.meta.dirname}/cases`;
const cases = casesUnder(folder);
if (cases.length === 0) Deno.test(`${folder} holds no case`, () => Promise.reject(new Error("no case.json below it")));
if (withoutWebGpu !== null) console.log(`WebGPU is left out, ${cases.length} cases skip it: ${withoutWebGpu}`);
for (const golden of cases) declare(golden);

function declare(golden: GoldenCase): void {
  const reason = reasonToSkip(golden);
  if (reason !== null) {
    Deno.test({ name: `${golden.id}: skipped, ${reason}`, ignore: true, fn: () => {} });
    return;
  }
  const kind = kindOf(golden);
  if (kind === null) {
    Deno.test(`${golden.id}`, () =>
      Promise.reject(
        new Error(
          `${golden.id} (${
            golden.info.what ?? "without a case.json"
          }) is of no kind that is known, nor one that not_built.ts names`,
        ),
      ));
  } else if (kind.files !== undefined) {
    Deno.test(golden.id, () => kind.files!(golden));
  } else {
    for (const { name, open } of runtimes) {
      Deno.test(`${golden.id} on ${name}`, async () => {
        using runtime = await open();
        await kind.run!(golden, runtime);
      });
    }
  }
}
