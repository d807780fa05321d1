/** Times of single passes by the device's own clock: timestamp queries, the one place that uses them. */
import { DeviceError } from "../../../core/errors.ts";
import { readBack } from "./readback.ts";

/** Passes that one query set has room for: two timestamps each, of the 4,096 that every device allows. */
const passesPerSet = 2048;

/**
 * The milliseconds of each of `count` passes, run in order. `encode` adds pass i, begun with the timestamps it is given.
 *
 * @throws {DeviceError} when the device has no timestamp queries
 */
export async function timePasses(
  gpu: GPUDevice,
  count: number,
  encode: (encoder: GPUCommandEncoder, i: number, timestampWrites: GPUComputePassTimestampWrites) => void,
): Promise<number[]> {
  if (!gpu.features.has("timestamp-query")) {
    throw new DeviceError("this adapter has no timestamp queries, so single kernels can't be timed on it");
  }
  const times: number[] = [];
  for (let first = 0; first < count; first += passesPerSet) {
    const passes = Math.min(passesPerSet, count - first);
    const bytes = passes * 2 * BigUint64Array.BYTES_PER_ELEMENT;
    const querySet = gpu.createQuerySet({ type: "timestamp", count: passes * 2 });
    const resolved = gpu.createBuffer({ size: bytes, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    const staging = gpu.createBuffer({ size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = gpu.createCommandEncoder();
    for (let i = 0; i < passes; i++) {
      const indices = { beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
      encode(encoder, first + i, { querySet, ...indices });
    }
    encoder.resolveQuerySet(querySet, 0, passes * 2, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
    gpu.queue.submit([encoder.finish()]);
    const contents = await readBack([staging]);
    if ("failed" in contents) throw new DeviceError(`the timestamps could not be read: ${contents.failed}`);
    const stamps = new BigUint64Array(contents[0]);
    for (let i = 0; i < passes; i++) times.push(Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6);
    resolved.destroy();
    querySet.destroy();
  }
  return times;
}
