/**
 * Random sequences of calls of random programs, in turns on two devices of a kind, with arguments that are one tensor,
 * donated arguments, programs that have to go and allocations that are refused in between: whatever happened before, a call
 * gives what the oracle gives, to the bit, or refuses and leaves all as it was.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DeviceError, OptionError } from "../../core/errors.ts";
import { type HostTensor, type Tensor, upload } from "../../core/tensor.ts";
import { jit } from "../../kernels/runtime/jit.ts";
import { read } from "../../kernels/runtime/read.ts";
import { devices } from "../devices.ts";
import { faulty } from "../../testing/faulty_device.ts";
import {
  aliases,
  difference,
  expected,
  hostInputs,
  programs,
  type RandomProgram,
  traced,
} from "../../testing/random_programs.ts";
import type { Value } from "../../core/ir/graph.ts";

const call = fc.record({
  program: fc.nat(2),
  device: fc.nat(1),
  /** Which arguments are donated, bit by bit. */
  donated: fc.oneof(fc.constant(0), fc.nat(63)),
  /** What happens at it. */
  event: fc.oneof(
    { weight: 4, arbitrary: fc.constant({ kind: "nothing" } as const) },
    fc.constant({ kind: "evicted" } as const),
    fc.record({ kind: fc.constant("refused" as const), after: fc.nat(4) }),
    fc.constant({ kind: "failed" } as const),
  ),
});

/** The arguments donated, if there are some of which none is another argument too; null where one is. */
function donation(program: RandomProgram, bits: number): { positions: number[]; shared: boolean } {
  const own = aliases(program);
  const positions = own.map((_, i) => i).filter((i) => bits >> i & 1);
  return { positions, shared: positions.some((i) => own.filter((of) => of === own[i]).length > 1) };
}

for (const device of devices) {
  Deno.test(`whatever was called, refused and let go before, ${device.name} gives the oracle's numbers`, async () => {
    using one = await device.open();
    using other = await device.open();
    const homes = [one, other].map(faulty);
    const webgpu = device.name.startsWith("webgpu");
    const pool = fc.array(programs({ nonFinite: !webgpu, length: 8 }), { minLength: 3, maxLength: 3 });
    await fc.assert(
      fc.asyncProperty(pool, fc.array(call, { minLength: 2, maxLength: 10 }), async (pool, calls) => {
        const wants = pool.map(expected);
        fc.pre(wants.every((want) => want !== null));
        const functions = new Map<string, ReturnType<typeof jit<Value[], readonly Value[]>>>();
        for (const { program: at, device, donated, event } of calls) {
          const [program, want, { home, faults, live }] = [pool[at], wants[at]!, homes[device]];
          const { positions, shared } = donation(program, donated);
          const name = `${at} ${positions}`;
          const f = functions.get(name) ??
            jit((...inputs: Value[]) => traced(program)(inputs), { donate: positions, warn: () => {} });
          functions.set(name, f);
          const own = aliases(program);
          const made: Tensor[] = hostInputs(program).map((host, i) => own[i] === i ? upload(home, host) : null!);
          const inputs = own.map((i) => made[i]);
          const held = live.size;
          const values = async () => await read(f(...inputs), { release: true });
          try {
            if (event.kind === "evicted") [one, other][device].programs.shrink();
            if (event.kind === "refused") faults.allocation = event.after;
            if (event.kind === "failed") faults.run = true;
            if (shared) {
              assertThrows(() => f(...inputs), OptionError, "are one tensor");
              assert(inputs.every((t) => t.alive));
              assertEquals(live.size, held);
              continue;
            }
            let got;
            try {
              got = await values();
            } catch (error) {
              if (!(error instanceof DeviceError)) throw error;
              if (event.kind === "refused") {
                assert(inputs.every((t) => t.alive));
                assertEquals(live.size, held);
                got = await values();
              } else {
                assert(inputs.every((t, i) => t.alive !== positions.includes(i)));
                continue;
              }
            }
            const wrong = difference(got as (HostTensor | number)[], want);
            if (wrong !== null) throw new Error(wrong);
            assert(inputs.every((t, i) => t.alive !== positions.includes(i)));
          } finally {
            faults.allocation = null;
            faults.run = false;
            for (const t of made) t?.dispose();
            assertEquals(live.size, 0);
          }
        }
      }),
      { numRuns: webgpu ? 60 : 600, seed: 11 },
    );
  });
}
