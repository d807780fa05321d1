import { sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import { DeviceError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import { Tensor } from "../../core/tensor.ts";
import { trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import { build } from "./compile.ts";
import type { Device } from "../device/device.ts";
import type { DeviceBuffer } from "../device/executable.ts";
import { type ExplainOptions, printPage } from "../explain/explain.ts";
import type { Arguments } from "../../core/tree_types.ts";
import { checkFunction, checkOptions } from "../../core/options.ts";

/**
 * The page of {@link explain} after two runs, with the time that each kernel took in the second, by the device's own clock.
 * Arguments are tensors of one device that measures time: a WebGPU device with timestamp queries.
 *
 * @throws {DeviceError} when no argument is a tensor, or the device can't measure
 */
export function profile<A extends readonly unknown[]>(
  f: (...args: A) => unknown,
  options: Pick<ExplainOptions, "brief"> = {},
): (...args: Arguments<A>) => Promise<string> {
  checkOptions("profile", options, { brief: true });
  checkFunction("profile", f);
  return async (...args) => {
    const built = build(trace(f, args).graph);
    const leaves = [...flatten<unknown>(args).leaves, ...built.captured];
    const stray = leaves.find((x) => !(x instanceof Tensor)) as Value | number | undefined;
    if (stray !== undefined || leaves.length === 0) {
      throw new DeviceError(
        `a profile is of a run on tensors, but got ${stray?.toString() ?? "none"}: upload every argument`,
      );
    }
    const tensors = leaves as Tensor[];
    const device = tensors[0].home as Device;
    const executable = device.compile(built.program);
    const outputs: DeviceBuffer[] = [];
    try {
      if (!executable.time) {
        throw new DeviceError(
          `${device.description} does not time kernels: profile on a device that has timestamp queries`,
        );
      }
      const buffers = tensors.map((t) => t.buffer as DeviceBuffer);
      for (const { shape, dtype } of built.graph.outputs) {
        outputs.push(device.allocate(Math.max(4, storageBytes(dtype, sizeOf(shape)))));
      }
      executable.run(buffers, outputs);
      const times = await executable.time(buffers, outputs);
      return printPage(built, { ...options, textOf: device.textOf! }, times);
    } finally {
      outputs.forEach((buffer) => device.free(buffer));
      executable.free();
    }
  };
}
