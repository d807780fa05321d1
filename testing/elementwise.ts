/** The elementwise operations of one and two operands, as the registry has them: lists of tests and benchmarks are made of these. */
import type { DType } from "../core/dtype.ts";
import { ShapeError } from "../core/errors.ts";
import type { Primitive } from "../core/ir/graph.ts";
import { binaryPrimitives, type ScalarOp, unaryPrimitives } from "../core/ops/elementwise.ts";

/** An elementwise operation. */
export interface Elementwise {
  readonly op: ScalarOp;
  readonly prim: Primitive<null>;
  /** How many operands it takes, all of one dtype. */
  readonly operands: 1 | 2;
  /** The name of the function that programs call. */
  readonly called: string;
}

const list = (prims: Readonly<Record<string, Primitive<null>>>, operands: 1 | 2): Elementwise[] =>
  Object.values(prims).map((prim) => ({
    op: prim.name as ScalarOp,
    prim,
    operands,
    // JavaScript has a function isFinite of its own.
    called: prim.name === "isFinite" ? "isFiniteValue" : prim.name,
  }));

/** All of them. */
export const elementwise: readonly Elementwise[] = [...list(unaryPrimitives, 1), ...list(binaryPrimitives, 2)];

/** The dtype of the result for operands of a dtype; null where it takes none such. */
export function resultFor({ prim, operands }: Elementwise, dtype: DType): DType | null {
  try {
    return prim.infer(Array.from({ length: operands }, () => ({ shape: [1], dtype })), null)[0].dtype;
  } catch (error) {
    if (error instanceof ShapeError) return null;
    throw error;
  }
}
