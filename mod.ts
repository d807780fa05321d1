/**
 * lowrank: fine-tune language models from a TypeScript program. A functional tensor DSL is traced into a graph, transforms
 * rewrite graphs, and a JIT turns them into WGSL and WebAssembly kernels; LoRA is one of the transforms.
 *
 * @module
 */
export { type Aval, formatAval } from "./core/aval.ts";
export type { DType, HostArray } from "./core/dtype.ts";
export type { PackedType } from "./core/packed/blocks.ts";
export { DataError, DeviceError, FileError, LowrankError, OptionError, ShapeError } from "./core/errors.ts";
export { type Graph, newInput, Value } from "./core/ir/graph.ts";
export { printGraph } from "./core/ir/print.ts";
export type {
  Cache,
  CacheEntry,
  ClassifierModel,
  EncoderModel,
  HeadedModel,
  LabelledModel,
  LanguageModel,
  LanguageModelSizes,
  Leaf,
  MaskedModel,
  Model,
  Parts,
  ProblemType,
  StepInputs,
  TaggerModel,
  Task,
  TokenInputs,
} from "./core/model.ts";
export * from "./core/nn/mod.ts";
export { broadcastTo, full, reduceSum, reshape } from "./core/ops/broadcast.ts";
export { constant } from "./core/ops/constant.ts";
export { dot, type DotDims, matmul } from "./core/ops/contract.ts";
export { stopGradient } from "./core/ops/control.ts";
export {
  abs,
  add,
  and,
  type Binary,
  bitcast,
  clamp,
  convert,
  cos,
  div,
  eq,
  erf,
  exp,
  floor,
  ge,
  gt,
  isFiniteValue,
  le,
  log,
  lt,
  max,
  min,
  mul,
  ne,
  neg,
  not,
  or,
  pow,
  recip,
  rem,
  rsqrt,
  select,
  shl,
  shr,
  sign,
  sin,
  sqrt,
  sub,
  tanh,
  type Unary,
  xor,
} from "./core/ops/elementwise.ts";
export { dynamicSlice, dynamicUpdateSlice, gather, scatterAdd } from "./core/ops/indexing.ts";
export { dequantize } from "./core/ops/quantize.ts";
export { dropout, foldIn, randomBits, randomNormal, randomUniform } from "./core/ops/random.ts";
export { argmax, cumsum, mean, reduceMax } from "./core/ops/reduce.ts";
export { concat, iota, pad, slice, split, transpose } from "./core/ops/structure.ts";
export { randomKey } from "./core/random.ts";
export {
  type HostTensor,
  type Nested,
  type Operand,
  type ScalarTensor,
  Tensor,
  tensor,
  type TensorHome,
  upload,
} from "./core/tensor.ts";
export { checkpoint } from "./core/transforms/checkpoint.ts";
export { type CustomRule, customVjp } from "./core/transforms/custom_vjp.ts";
export { grad, type Gradients, type GradOptions, valueAndGrad } from "./core/transforms/grad.ts";
export { roundActivations } from "./core/transforms/round_activations.ts";
export { sumOver } from "./core/transforms/sum_over.ts";
export { vmap, type VmapOptions } from "./core/transforms/vmap.ts";
export { flatten, type FlatTree, mapTree } from "./core/tree.ts";
export type {
  Arguments,
  Given,
  HostTree,
  Scalar,
  ScalarOperand,
  Tensors,
  Values,
  WithLeaves,
} from "./core/tree_types.ts";
export type { Device } from "./kernels/device/device.ts";
export type { DeviceBuffer } from "./kernels/device/executable.ts";
export type { BlasOptions, CpuOptions } from "./kernels/device/cpu/cpu.ts";
export { type DeviceChoice, type DeviceOptions, openDevice, type OpenedDevice } from "./kernels/device/open.ts";
export type { WebGpuOptions } from "./kernels/device/webgpu/webgpu.ts";
export { explain, type ExplainOptions } from "./kernels/explain/explain.ts";
export { jit, type JitOptions } from "./kernels/runtime/jit.ts";
export { evaluate, read } from "./kernels/runtime/read.ts";
export type { EncodedType } from "./core/packed/encode.ts";
export { describeQuantization, quantize, type QuantizeOptions } from "./kernels/runtime/quantize.ts";
export { profile } from "./kernels/runtime/profile.ts";
export type { TileConfig } from "./kernels/wgsl/tile.ts";
export * from "./lora/mod.ts";
export { loadAdapter, lora, pissa, tune, type TunedLanguageModel, type TunedModel } from "./formats/tuned_model.ts";
export { loadModel } from "./models/load/load_model.ts";
export { train } from "./train/loop.ts";
