/**
 * Random programs: fused kernels must give the very numbers that the oracle gives op by op. This is the test of
 * partitioning, lowering and planning; there is no tolerance in it.
 */
import fc from "fast-check";
import { upload } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";
import { aliases, difference, expected, hostInputs, programs, traced } from "../../testing/random_programs.ts";

for (const device of devices) {
  Deno.test(`random programs on ${device.name} are the oracle's, to the bit`, async () => {
    using home = await device.open();
    const webgpu = device.name.startsWith("webgpu");
    await fc.assert(
      fc.asyncProperty(programs({ nonFinite: !webgpu }), async (program) => {
        const want = expected(program);
        fc.pre(want !== null);
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
