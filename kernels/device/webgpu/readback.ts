/** The one place where buffers are mapped, and so the one where a device is waited for. */

/**
 * The contents of staging buffers, which end here. All maps share one wait: in Deno each wait takes 10 ms at least, however
 * little there is to wait for. A range is taken only after its `mapAsync` has resolved: before, Deno ends the process.
 * Where maps fail, the first failure is the result.
 */
export async function readBack(
  staging: readonly GPUBuffer[],
): Promise<readonly ArrayBuffer[] | { readonly failed: unknown }> {
  try {
    const maps = await Promise.allSettled(staging.map((buffer) => buffer.mapAsync(GPUMapMode.READ)));
    const failed = maps.find((map) => map.status === "rejected");
    if (failed) return { failed: failed.reason };
    return staging.map((buffer) => buffer.getMappedRange().slice(0));
  } finally {
    staging.forEach((buffer) => buffer.destroy());
  }
}
