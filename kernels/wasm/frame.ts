/** What every emitted kernel has in common: its signature, its operands' addresses, and how work is numbered. */
import type { KernelKind, KernelOf } from "../ir/kernel.ts";
import { assembleModule, Code, type ImportedFunction, type Local } from "./assembler.ts";
import type { Space } from "./point_access.ts";
import type { Schedule, Target } from "./schedule.ts";

/** How code is emitted for an engine. */
export interface EmitOptions extends Target {
  /** Whether the memory is shared between threads. */
  readonly shared: boolean;
  /** Whether the engine has the fused multiply-add of relaxed SIMD. */
  readonly relaxed: boolean;
}

/**
 * A kernel as a module that imports memory `m.m` (and `b.product`, where a BLAS is to multiply) and exports `run(operands, scratch, start, end)`: `operands` is the
 * address of one u32 address per operand, `scratch` that of `scratchBytes` of the caller's own, and units [start, end) of
 * the work are done. Units may run in any order, at once and on any thread; results do not depend on it.
 */
export interface EmittedKernel {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly units: number;
  /** Units that are worth a call. */
  readonly grain: number;
  readonly scratchBytes: number;
}

/** The function of one kernel: parameters named, operand addresses in locals. */
export class KernelFrame<K extends KernelKind> {
  readonly code: Code = new Code(["i32", "i32", "i32", "i32"]);
  readonly scratch: Local = this.code.parameter(1);
  readonly unit: Local = this.code.parameter(2);
  readonly end: Local = this.code.parameter(3);
  readonly pointers: readonly Local[];

  constructor(readonly kernel: KernelOf<K>, readonly schedule: Schedule<K>, readonly options: EmitOptions) {
    this.pointers = kernel.operands.map((_, i) => {
      const local = this.code.local("i32");
      this.code.get(this.code.parameter(0)).memory("i32.load", 4 * i).set(local);
      return local;
    });
  }

  /** Runs `body` for each unit asked for. */
  eachUnit(body: () => void): void {
    this.code.loopUpTo(this.unit, this.end, 1, body);
  }

  /** The kernel's points as its loops reach them. */
  space(axes: readonly Local[], laneAxis = axes.length - 1, loopAxis = axes.length - 1): Space {
    const { code, options: { relaxed }, kernel: { operands }, pointers } = this;
    return { code, relaxed, operands, pointers, axes, laneAxis, loopAxis };
  }

  /** Splits a flat row-major counter into one local per axis. The first axis takes what is left. */
  unflatten(flat: Local, shape: readonly number[]): Local[] {
    const { code } = this;
    const locals = shape.map(() => code.local("i32"));
    const rest = code.local("i32");
    code.get(flat).set(rest);
    for (let i = shape.length - 1; i > 0; i--) {
      code.get(rest).i32(shape[i]).op("i32.rem_u").set(locals[i]);
      code.get(rest).i32(shape[i]).op("i32.div_u").set(rest);
    }
    if (shape.length > 0) code.get(rest).set(locals[0]);
    code.release("i32", rest);
    return locals;
  }

  /** The module of this function and those it calls, which come before it. */
  finish(
    scratchBytes = 0,
    functions: readonly Code[] = [this.code],
    imported: readonly ImportedFunction[] = [],
  ): EmittedKernel {
    const { units, grain } = this.schedule;
    return { bytes: assembleModule(functions, this.options, imported), units, grain, scratchBytes };
  }
}
