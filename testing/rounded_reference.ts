/** Rows rounded to bytes, operation by operation in f32: every device takes the same bytes. */

/** A row in blocks of 32, each value the nearest multiple (halves go up) of its block's greatest magnitude / 127. */
export function roundToBytes(row: Float64Array): Float64Array {
  const rounded = new Float64Array(row.length);
  for (let start = 0; start < row.length; start += 32) {
    const block = row.subarray(start, start + 32);
    const most = block.reduce((greatest, x) => Math.max(greatest, Math.abs(x)), 0);
    const inverse = Math.fround(127 / Math.max(most, Math.fround(1e-30)));
    const step = Math.fround(most / 127);
    block.forEach((x, i) => rounded[start + i] = step * Math.floor(Math.fround(Math.fround(x * inverse) + 0.5)));
  }
  return rounded;
}
