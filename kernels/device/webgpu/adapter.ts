import { DeviceError } from "../../../core/errors.ts";

/** An adapter that was found, and whether it computes on the CPU. */
export interface FoundAdapter {
  readonly adapter: GPUAdapter;
  /** `NVIDIA GeForce RTX 4070`, `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly name: string;
  readonly software: boolean;
}

/** Names that software rasterisers give themselves: Mesa's llvmpipe and lavapipe, SwiftShader, Windows' WARP. */
const softwareNames = /llvmpipe|lavapipe|swiftshader|softpipe|basic render|software/i;

/** The WebGPU adapter of this machine, or the reason why there is none. */
export async function findAdapter(
  gpu: Pick<GPU, "requestAdapter"> | null = globalThis.navigator?.gpu ?? null,
): Promise<FoundAdapter | { readonly missing: string }> {
  if (!gpu) return { missing: "this runtime has no navigator.gpu" };
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return { missing: "no WebGPU adapter was found" };
  const info = adapter.info;
  const maker = [info.vendor, info.architecture].filter(Boolean).join(" ");
  const name = info.description || info.device || maker || "unnamed adapter";
  const older = adapter as { isFallbackAdapter?: boolean };
  const software = info.isFallbackAdapter === true || older.isFallbackAdapter === true || softwareNames.test(name);
  return { adapter, name, software };
}

/** Every limit that is asked for, as much as the adapter has of it, and the least that kernels are written for. */
const neededLimits = {
  maxBufferSize: 2 ** 28,
  maxStorageBufferBindingSize: 2 ** 27,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16_384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
} as const;
const limitNames = Object.keys(neededLimits) as (keyof typeof neededLimits)[];

/** What is used where an adapter has it: single kernels are timed by timestamps. */
const featureNames = ["timestamp-query"] as const;

/**
 * A device of the adapter with the greatest limits it has.
 *
 * @throws {DeviceError} when the adapter has too little of one, or gives no device
 */
export async function requestDevice({ adapter, name }: FoundAdapter): Promise<GPUDevice> {
  for (const limit of limitNames) {
    if (!(adapter.limits[limit] >= neededLimits[limit])) {
      throw new DeviceError(
        `The GPU adapter ${name} has a ${limit} of ${adapter.limits[limit]}, but kernels need ${
          neededLimits[limit]
        }: ` +
          `use --device cpu`,
      );
    }
  }
  const requiredLimits = Object.fromEntries(limitNames.map((limit) => [limit, adapter.limits[limit]]));
  const requiredFeatures: GPUFeatureName[] = featureNames.filter((feature) => adapter.features.has(feature));
  let device: GPUDevice;
  try {
    device = await requestWithSubgroups(adapter, { requiredLimits, requiredFeatures });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DeviceError(`The GPU adapter ${name} gave no device (${why}): use --device cpu`, { cause });
  }
  for (const limit of limitNames) {
    if (device.limits[limit] >= adapter.limits[limit]) continue;
    device.destroy();
    throw new DeviceError(
      `The GPU adapter ${name} promised a ${limit} of ${adapter.limits[limit]} and gave ${device.limits[limit]}: ` +
        `use --device cpu`,
    );
  }
  return device;
}

/**
 * A device with subgroups where that can be had. Deno does not list them among an adapter's features and gives them to who
 * asks, so the asking must be tried; an adapter gives one device at most, but a refusal does not use it up.
 */
async function requestWithSubgroups(adapter: GPUAdapter, descriptor: GPUDeviceDescriptor): Promise<GPUDevice> {
  const requiredFeatures = [...descriptor.requiredFeatures ?? [], "subgroups" as GPUFeatureName];
  try {
    return await adapter.requestDevice({ ...descriptor, requiredFeatures });
  } catch {
    return await adapter.requestDevice(descriptor);
  }
}
