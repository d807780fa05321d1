import { isPacked } from "../core/packed/blocks.ts";
import { decodePacked } from "./packed_reference.ts";
import { type DType, fromBf16, fromF16, type HostArray, toBf16, toF16 } from "../core/dtype.ts";

/** One operand: elements are read widened and written narrowed. */
export class Cells {
  readonly data: HostArray | Float64Array;

  /** `size` is that of the array in elements, which a packed one's words do not tell. */
  constructor(readonly dtype: DType, data: HostArray, size: number) {
    this.data = isPacked(dtype) ? decodePacked(dtype, size, data).values : data;
  }

  get(i: number): number {
    if (!(i >= 0 && i < this.data.length)) throw new RangeError(`element ${i} of ${this.data.length} was read`);
    const x = this.data[i];
    if (this.dtype === "f16") return fromF16(x);
    if (this.dtype === "bf16") return fromBf16(x);
    return this.dtype === "bool" ? (x !== 0 ? 1 : 0) : x;
  }

  set(i: number, x: number): void {
    if (!(i >= 0 && i < this.data.length)) throw new RangeError(`element ${i} of ${this.data.length} was written`);
    this.data[i] = this.dtype === "f16" ? toF16(x) : this.dtype === "bf16" ? toBf16(x) : x;
  }
}
