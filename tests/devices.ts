/** The devices that laws and goldens run on: every path of the CPU, a BLAS and WebGPU where they are there. */
import { findBlas } from "../kernels/device/cpu/blas.ts";
import { openCpu } from "../kernels/device/cpu/cpu.ts";
import type { Device } from "../kernels/device/device.ts";
import { deviceChoices, openDevice } from "../kernels/device/open.ts";
import { openWebGpu } from "../kernels/device/webgpu/webgpu.ts";
import { findAdapter } from "../kernels/device/webgpu/adapter.ts";

/** A device by name, opened when a test needs it. */
export interface DeviceCase {
  readonly name: string;
  open(): Promise<Device>;
}

const adapter = await findAdapter();

/** Why WebGPU is left out, or null: a test run says it once. */
export const withoutWebGpu: string | null = "missing" in adapter ? adapter.missing : null;

const blas = findBlas();

/** Why the BLAS is left out, or null. */
export const withoutBlas: string | null = "refusal" in blas ? blas.refusal || "--allow-ffi was not given" : null;
if (withoutBlas !== null) console.log(`Products by a BLAS are left out: ${withoutBlas}`);

export const devices: readonly DeviceCase[] = [
  { name: "cpu", open: () => openCpu({ threads: 2, blas: false }) },
  { name: "cpu without relaxed simd", open: () => openCpu({ threads: 1, relaxed: false, blas: false }) },
  // Products of every size, so that small tests reach it too.
  ...("refusal" in blas ? [] : [{ name: "cpu with a BLAS", open: () => openCpu({ threads: 2, blas: { from: 0 } }) }]),
  // A further back end needs no line of its own.
  ...deviceChoices.filter((name) => !["auto", "cpu", "webgpu"].includes(name)).map((name) => ({
    name: `${name}`,
    open: () => openDevice(name),
  })),
  ...("missing" in adapter ? [] : [{ name: `webgpu (${adapter.name})`, open: () => openWebGpu() }]),
];
