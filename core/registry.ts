/** Every primitive there is. The laws run over this list, so that none is forgotten. */
import { inputPrim, type Primitive } from "./ir/graph.ts";
import { broadcastPrim, reduceSumPrim, reshapePrim } from "./ops/broadcast.ts";
import { constantPrim } from "./ops/constant.ts";
import { dotPrim } from "./ops/contract.ts";
import { barrierPrim, stopGradientPrim } from "./ops/control.ts";
import { bitcastPrim, convertPrim, primitives as elementwise, selectPrim } from "./ops/elementwise.ts";
import { dynamicSlicePrim, dynamicUpdateSlicePrim, gatherPrim, scatterAddPrim } from "./ops/indexing.ts";
import { dequantizePrim } from "./ops/quantize.ts";
import { randomBitsPrim } from "./ops/random.ts";
import { argmaxPrim, reduceMaxPrim } from "./ops/reduce.ts";
import { concatPrim, iotaPrim, padPrim, slicePrim, splitPrim, transposePrim } from "./ops/structure.ts";
import { tensorPrim } from "./tensor.ts";
import { checkpointPrim } from "./transforms/checkpoint.ts";
import { customVjpPrim } from "./transforms/custom_vjp.ts";
import { sumOverPrim } from "./transforms/sum_over.ts";

/** What a graph's leaves are. */
export const leafPrimitives: readonly Primitive[] = [inputPrim, tensorPrim, constantPrim, iotaPrim];

/** What computes something from inputs, without a body. */
export const operations: readonly Primitive[] = [
  ...Object.values(elementwise),
  selectPrim,
  convertPrim,
  bitcastPrim,
  broadcastPrim,
  reshapePrim,
  transposePrim,
  slicePrim,
  padPrim,
  concatPrim,
  splitPrim,
  reduceSumPrim,
  reduceMaxPrim,
  argmaxPrim,
  dotPrim,
  gatherPrim,
  scatterAddPrim,
  dynamicSlicePrim,
  dynamicUpdateSlicePrim,
  randomBitsPrim,
  dequantizePrim,
  stopGradientPrim,
  barrierPrim,
];

/** What carries a traced body. */
export const bodyPrimitives: readonly Primitive[] = [checkpointPrim, sumOverPrim, customVjpPrim];
