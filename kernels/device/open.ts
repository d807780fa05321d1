import { OptionError } from "../../core/errors.ts";
import { type CpuOptions, openCpu } from "./cpu/cpu.ts";
import type { Device } from "./device.ts";
import { openAdapter, openWebGpu, type WebGpuOptions } from "./webgpu/webgpu.ts";
import { findAdapter } from "./webgpu/adapter.ts";
import { checkOptions, type OptionNames } from "../../core/options.ts";

/** How the device is opened; options of a device that is not chosen are not read. */
export type DeviceOptions = CpuOptions & WebGpuOptions;

const deviceOptions: OptionNames<DeviceOptions> = {
  ...{ threads: true, relaxed: true, blas: true, tile: true, tune: true, store: true, warn: true },
};

/** Which device to open: `auto` takes a GPU where there is a real one, else the CPU. */
export type DeviceChoice = "auto" | "cpu" | "webgpu";

/** What opens each back end, by name. A further one is a folder beside these, its name above and a line here. */
const backEnds = { cpu: openCpu, webgpu: openWebGpu } satisfies Record<
  Exclude<DeviceChoice, "auto">,
  (options: never) => Promise<Device>
>;

/** Every choice there is. */
export const deviceChoices = ["auto", ...Object.keys(backEnds)] as readonly DeviceChoice[];

/** A device, and why it is this one. */
export type OpenedDevice = Device & {
  /** `no GPU adapter but a software one (llvmpipe)`: what a program prints after the description. */
  readonly reason: string;
};

/**
 * Opens a device: `using device = await openDevice("auto")`. It needs no permission. `auto` counts a software adapter
 * (llvmpipe, SwiftShader, WARP) as none: WebAssembly runs several times faster on the same processor.
 *
 * @throws {OptionError} when the choice or an option is not one there is
 * @throws {DeviceError} when the device asked for is not there
 */
export async function openDevice(choice: DeviceChoice = "auto", options: DeviceOptions = {}): Promise<OpenedDevice> {
  checkOptions("openDevice", options, deviceOptions);
  if (choice === "auto") return await openBest(options);
  if (!deviceChoices.includes(choice)) {
    throw new OptionError(`There is no device ${choice}: choose one of ${deviceChoices.join(", ")}`);
  }
  return explained(await backEnds[choice](options), "asked for");
}

async function openBest(options: DeviceOptions): Promise<OpenedDevice> {
  const found = await findAdapter();
  if ("missing" in found) return explained(await openCpu(options), found.missing);
  if (found.software) {
    return explained(await openCpu(options), `no GPU adapter but a software one (${shortName(found.name)})`);
  }
  try {
    return explained(await openAdapter(found, options), "a GPU adapter is there");
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return explained(await openCpu(options), error.message);
  }
}

/** `llvmpipe` of `llvmpipe (LLVM 15.0.6, 256 bits)`. */
function shortName(name: string): string {
  return name.split(" (")[0];
}

function explained(device: Device, reason: string): OpenedDevice {
  return Object.assign(device, { reason: device.remark ? `${reason}; ${device.remark}` : reason });
}
