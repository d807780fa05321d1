/**
 * One table of kernels that every back end must compute as `interpretKernel` does: `tests/laws/kernels_test.ts` runs
 * all of them on all devices. Each case is small, and shaped to meet one edge.
 */
import { attentionCases } from "./cases/attention.ts";
import type { KernelCase } from "./cases/build.ts";
import { mapCases } from "./cases/map.ts";
import { packedCases } from "./cases/packed.ts";
import { contractCases } from "./cases/product.ts";
import { modelRowCases, rowCases, scatterCases } from "./cases/row.ts";
import { scalarCases } from "./cases/scalar.ts";

/** The whole table. */
export function kernelCases(): KernelCase[] {
  return [
    ...scalarCases(),
    ...mapCases(),
    ...rowCases(),
    ...modelRowCases(),
    ...contractCases(),
    ...scatterCases(),
    ...attentionCases(),
    ...packedCases(),
  ];
}
