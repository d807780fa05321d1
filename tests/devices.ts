/** The devices that laws and goldens run on: every path of the CPU, and WebGPU where an adapter is there. */
import { openCpu } from "../kernels/device/cpu.ts";
import type { Device } from "../kernels/device/device.ts";
import { openWebGpu } from "../kernels/device/webgpu.ts";
import { findAdapter } from "../kernels/device/webgpu_adapter.ts";

/** A device by name, opened when a test needs it. */
export interface DeviceCase {
  readonly name: string;
  open(): Promise<Device>;
}

const adapter = await findAdapter();

/** Why WebGPU is left out, or null: a test run says it once. */
export const withoutWebGpu: string | null = "missing" in adapter ? adapter.missing : null;

export const devices: readonly DeviceCase[] = [
  { name: "cpu", open: () => openCpu({ threads: 2 }) },
  { name: "cpu without relaxed simd", open: () => openCpu({ threads: 1, relaxed: false }) },
  ...("missing" in adapter ? [] : [{ name: `webgpu (${adapter.name})`, open: () => openWebGpu() }]),
];
