/**
 * Random programs: fused kernels must give the very numbers that the oracle gives op by op. This is the test of
 * partitioning, lowering and planning; there is no tolerance in it.
 */
import fc from "fast-check";
import { upload } from "../../core/tensor.ts";
import { jit, read } from "../../kernels/jit.ts";
import { steps } from "../reference/random_steps.ts";
import { devices } from "../devices.ts";
import { aliases, difference, expected, hostInputs, programs, traced } from "../reference/random_programs.ts";

const empty = ["slice", "turnSplit", "window", "update", "gather", "gatherByValue", "broadcast", "scatter"];
const ops = Object.keys(steps).filter((name) => name !== "integerFold" && !empty.includes(name));

for (const device of devices) {
  Deno.test(`random programs on ${device.name} are the oracle's, to the bit`, async () => {
    using home = await device.open();
    const webgpu = device.name.startsWith("webgpu");
    await fc.assert(
      fc.asyncProperty(programs({ nonFinite: false, smallest: 1, ops }), async (program) => {
        const want = expected(program);
        fc.pre(
          want !== null && want.every(({ shape, dtype }) => shape.length > 0 || dtype !== "f16" && dtype !== "bf16"),
        );
        const own = hostInputs(program).map((host, i) => aliases(program)[i] === i ? upload(home, host) : null);
        const inputs = aliases(program).map((i) => own[i]!);
        try {
          const got = await read(jit(traced(program))(inputs), { release: true });
          const wrong = difference(got, want!);
          if (wrong !== null) throw new Error(wrong);
        } finally {
          for (const t of own) t?.dispose();
        }
      }),
      { numRuns: webgpu ? 100 : 1000, seed: 7 },
    );
  });
}
