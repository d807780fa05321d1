/** The state of one lowering: which buffers there are, how each value is to be had, and the launches made so far. */
import { type Aval, formatAval, sizeOf } from "../../core/aval.ts";
import type { DType } from "../../core/dtype.ts";
import { LowrankError } from "../../core/errors.ts";
import { type Graph, type Node, nodesOf, type Value } from "../../core/ir/graph.ts";
import { wholeView } from "../../core/ops/broadcast.ts";
import type { Kernel } from "../kernel.ts";
import { type Buffer, isBuffer, isWhole, type Repr } from "./repr.ts";

/** A kernel and the buffers it is given, before a plan has placed them. */
export interface Launch {
  readonly kernel: Kernel;
  readonly buffers: readonly Buffer[];
  /** A copy that is not needed where the plan can give `to` the memory of `from`. */
  readonly elidable?: { readonly from: Buffer; readonly to: Buffer };
}

export class Context {
  readonly launches: Launch[] = [];
  readonly nodes: readonly Node[];
  readonly reprs = new Map<Value, Repr>();
  readonly consumers = new Map<Value, Node[]>();
  readonly outputs: ReadonlySet<Value>;
  /** Elementwise values that are computed inside their one consumer. */
  readonly inlined = new Set<Value>();
  #buffers = 0;

  constructor(readonly graph: Graph) {
    this.nodes = nodesOf(graph.outputs);
    this.outputs = new Set(graph.outputs.map((v) => this.resolve(v)));
    for (const node of this.nodes) {
      if (node.prim.lowering.kind === "alias") continue;
      for (const v of new Set(node.inputs.map((v) => this.resolve(v)))) {
        const list = this.consumers.get(v);
        if (list) list.push(node);
        else this.consumers.set(v, [node]);
      }
    }
  }

  /** The value that an alias (a barrier, a stopped gradient) stands for. */
  resolve(v: Value): Value {
    while (v.node.prim.lowering.kind === "alias") v = v.node.inputs[v.index];
    return v;
  }

  inputs(node: Node): Value[] {
    return node.inputs.map((v) => this.resolve(v));
  }

  newBuffer(dtype: DType, size: number, argument?: number): Buffer {
    return { id: this.#buffers++, dtype, size, argument };
  }

  /** A new buffer for a whole array of this aval. */
  newWhole(aval: Aval): { buffer: Buffer; repr: Repr } {
    const buffer = this.newBuffer(aval.dtype, sizeOf(aval.shape));
    return { buffer, repr: { base: buffer, view: wholeView(aval.shape), dtype: aval.dtype } };
  }

  /** The buffer behind a window that is known to be whole. */
  wholeBuffer(repr: Repr, aval: Aval): Buffer {
    if (!isBuffer(repr.base) || !isWhole(repr, aval)) {
      throw new LowrankError(`${formatAval(aval)} is not whole in its buffer: this is a bug of lowering`);
    }
    return repr.base;
  }
}
