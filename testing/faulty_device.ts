/** A device that fails on request: what is above it must clean up after itself. */
import { DeviceError } from "../core/errors.ts";
import type { Device } from "../kernels/device/device.ts";
import { type DeviceBuffer, RunError } from "../kernels/device/executable.ts";
import type { CachedProgram, ProgramCache } from "../kernels/device/program_cache.ts";

/** What fails next: the allocation after so many others, a run in its middle, or nothing. */
export interface Faults {
  allocation: number | null;
  run: boolean;
}

/**
 * The device as a home of tensors and programs; its faults, which are over once they have happened; and the buffers that
 * tensors and calls hold.
 */
export function faulty(
  device: Device,
): { readonly home: Device; readonly faults: Faults; readonly live: Set<unknown> } {
  const live = new Set<unknown>();
  const faults: Faults = { allocation: null, run: false };
  const allocate = (bytes: number) => {
    if (faults.allocation !== null && faults.allocation-- === 0) {
      faults.allocation = null;
      throw new DeviceError("no room, as was asked for");
    }
    const buffer = device.allocate(bytes);
    live.add(buffer);
    return buffer;
  };
  const free = (buffer: DeviceBuffer) => {
    device.free(buffer);
    live.delete(buffer);
  };
  const around = (held: CachedProgram): CachedProgram => ({
    outputs: held.outputs,
    get executable() {
      const { executable } = held;
      if (executable === null || !faults.run) return executable;
      return {
        free: () => executable.free(),
        run: (args: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[]) => {
          faults.run = false;
          executable.run(args, outputs);
          throw new RunError("failed in its middle, as was asked for");
        },
      };
    },
  });
  const inner = new WeakMap<CachedProgram, CachedProgram>();
  const programs: Pick<ProgramCache, "ids" | "get" | "use"> = {
    ids: device.programs.ids,
    get: (key, make) => {
      const held = device.programs.get(key, make);
      const outer = around(held);
      inner.set(outer, held);
      return outer;
    },
    use: (held) => device.programs.use(inner.get(held)!),
  };
  const home = new Proxy(device, {
    get: (target, name) => {
      if (name === "allocate") return allocate;
      if (name === "free") return free;
      if (name === "programs") return programs;
      const found = Reflect.get(target, name, target);
      return typeof found === "function" ? found.bind(target) : found;
    },
  });
  return { home, faults, live };
}
