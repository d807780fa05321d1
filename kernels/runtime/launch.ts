/** One call of a compiled function: its memory is made, the program runs, what was donated ends. */
import type { Aval } from "../../core/aval.ts";
import { OptionError } from "../../core/errors.ts";
import { Tensor, upload } from "../../core/tensor.ts";
import type { Device } from "../device/device.ts";
import { type DeviceBuffer, RunError } from "../device/executable.ts";
import type { CachedProgram } from "../device/program_cache.ts";

/** What a jitted function is given: a number is rank-0 f32 data. */
export type Leaf = Tensor | number;

/** A function compiled for one device and one structure and avals of its arguments. */
export interface Compiled {
  readonly device: Device;
  readonly program: CachedProgram;
  readonly captured: readonly Tensor[];
  /** Leaves of donated arguments. */
  readonly donated: ReadonlySet<number>;
  readonly outputs: readonly { readonly aval: Aval; readonly bytes: number }[];
  /** What the leaves are called, `0.weight`, where some are donated. */
  readonly paths: readonly string[];
  unflatten(leaves: readonly unknown[]): unknown;
}

/** Runs a program that its device holds. Where that throws, nothing stays allocated. */
export function launch(compiled: Compiled, leaves: readonly Leaf[]): unknown {
  const { device, program, captured, donated, outputs } = compiled;
  device.programs.use(program);
  const scalars: Tensor[] = [];
  const made: DeviceBuffer[] = [];
  try {
    const tensors = leaves.map((x) => {
      if (x instanceof Tensor) return x;
      const scalar = upload(device, { shape: [], dtype: "f32", data: new Float32Array([x]) });
      scalars.push(scalar);
      return scalar;
    });
    const buffers = tensors.map((t) => t.buffer as DeviceBuffer);
    for (const t of captured) buffers.push(t.buffer as DeviceBuffer);
    if (donated.size > 0) checkDonation(compiled, buffers);
    const results = outputs.map(({ bytes }, i) => {
      const from = program.outputs[i].donated;
      if (from !== undefined) return buffers[from];
      const buffer = device.allocate(bytes);
      made.push(buffer);
      return buffer;
    });
    try {
      program.executable!.run(buffers, results);
    } catch (error) {
      // What was to be written in place is neither old nor new.
      if (error instanceof RunError) { for (const i of donated) tensors[i].dispose(); }
      throw error;
    }
    made.length = 0;
    if (donated.size > 0) {
      for (const { donated: from } of program.outputs) if (from !== undefined) tensors[from].detachBuffer();
      for (const i of donated) tensors[i].dispose();
    }
    return compiled.unflatten(results.map((buffer, i) => new Tensor(device, buffer, outputs[i].aval)));
  } finally {
    for (const buffer of made) device.free(buffer);
    for (const scalar of scalars) scalar.dispose();
  }
}

/** Donated memory is written, so it may be nobody else's in the same call. */
function checkDonation({ donated, paths }: Compiled, buffers: readonly DeviceBuffer[]): void {
  const owners = new Map<DeviceBuffer, number>();
  for (const i of donated) {
    const other = owners.get(buffers[i]);
    if (other !== undefined) throw aliased(paths, other, i, "both are donated");
    owners.set(buffers[i], i);
  }
  buffers.forEach((buffer, i) => {
    const owner = owners.get(buffer);
    if (owner !== undefined && owner !== i) throw aliased(paths, owner, i, "the first is donated");
  });
}

function aliased(paths: readonly string[], donated: number, other: number, why: string): OptionError {
  const second = other < paths.length ? `argument ${paths[other]}` : "a tensor that the function mentions";
  return new OptionError(
    `argument ${paths[donated]} and ${second} are one tensor, and ${why}, so that its memory is written while it is ` +
      `read: give each a tensor of its own (jit((x) => x)(t) copies one)`,
  );
}
