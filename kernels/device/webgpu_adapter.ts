import { DeviceError } from "../../core/errors.ts";

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
  const name = info.description || info.device || info.vendor || "unnamed adapter";
  const older = adapter as { isFallbackAdapter?: boolean };
  const software = info.isFallbackAdapter === true || older.isFallbackAdapter === true || softwareNames.test(name);
  return { adapter, name, software };
}

const limitNames = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** What is used where an adapter has it: single kernels are timed by timestamps. */
const featureNames = ["timestamp-query"] as const;

/** A device of the adapter with the greatest limits it has. */
export async function requestDevice({ adapter, name }: FoundAdapter): Promise<GPUDevice> {
  const requiredLimits = Object.fromEntries(limitNames.map((limit) => [limit, adapter.limits[limit]]));
  const requiredFeatures = featureNames.filter((feature) => adapter.features.has(feature));
  try {
    return await adapter.requestDevice({ requiredLimits, requiredFeatures });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new DeviceError(`The GPU adapter ${name} gave no device (${why}): use --device cpu`, { cause });
  }
}
