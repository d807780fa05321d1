/** The state of one lowering: which buffers there are, how each value is represented, and the launches made so far. */
import { type Aval, formatAval, sizeOf } from "../../core/aval.ts";
import type { DType } from "../../core/dtype.ts";
import { LowrankError } from "../../core/errors.ts";
import { type Graph, type Node, nodesOf, type Value } from "../../core/ir/graph.ts";
import { wholeView } from "../../core/ops/broadcast.ts";
import { type Body, type Launch, launchOf } from "./body.ts";
import { withoutEmptyAxes } from "./empty_axes.ts";
import { splitLongRow } from "./long_row.ts";
import { type Buffer, isBuffer, isWhole, type Repr } from "./repr.ts";

export class Context {
  readonly #launches: { readonly at: number; readonly launch: Launch }[] = [];
  readonly nodes: readonly Node[];
  readonly reprs = new Map<Value, Repr>();
  readonly consumers = new Map<Value, Node[]>();
  readonly outputs: ReadonlySet<Value>;
  /** Elementwise values that are computed inside their one consumer. */
  readonly inlined = new Set<Value>();
  /** Where a value is to be written that is only a piece of a concatenation. */
  readonly destinations = new Map<Value, Repr>();
  /** Where in the order of launches those of a late closing group belong; null for the end. */
  place: number | null = null;
  #places = 0;
  /** The last place at which each buffer is written. */
  readonly #written = new Map<Buffer, number>();
  /** Buffers that hold several values, by the values' names. */
  readonly joined = new Map<string, Buffer>();
  readonly #wholes = new Map<Value, Repr>();
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

  /** The place after all that were given out, among which a launch or a group that is complete now belongs. */
  nextPlace(): number {
    return this.#places++;
  }

  /** Adds what does the work of a body, or of a kernel that is made, at the end, or where its group was complete. */
  launch(given: Body | Launch): void {
    for (const body of withoutEmptyAxes(given)) {
      const launch = "kernel" in body ? body : launchOf(body);
      for (const each of splitLongRow(launch, (dtype, size) => this.newBuffer(dtype, size)) ?? [launch]) {
        this.#add(each);
      }
    }
  }

  #add(launch: Launch): void {
    const at = this.place ?? this.nextPlace();
    this.#launches.push({ at, launch });
    launch.buffers.forEach((b, o) => {
      if (launch.kernel.operands[o].access !== "read") this.#written.set(b, Math.max(at, this.#written.get(b) ?? at));
    });
  }

  /** Whether all of some buffers were written before a place in the order of launches. */
  writtenBefore(buffers: Iterable<Buffer>, place: number): boolean {
    for (const b of buffers) if ((this.#written.get(b) ?? -1) >= place) return false;
    return true;
  }

  /** The launches in order. A group is launched as early as it can be, so that what it reads may end early. */
  get launches(): Launch[] {
    return [...this.#launches].sort((a, b) => a.at - b.at).map((x) => x.launch);
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

  /** A contiguous copy of a value that is already represented; everyone who asks gets the same copy. */
  wholeOnce(v: Value, copy: (ctx: Context, repr: Repr) => Repr): Repr {
    const known = this.#wholes.get(v) ?? copy(this, this.reprs.get(v)!);
    this.#wholes.set(v, known);
    return known;
  }

  /** Where a value is to be written: a whole new buffer, or its piece of a concatenation. */
  destination(v: Value): { buffer: Buffer; repr: Repr } {
    const repr = this.destinations.get(v);
    return repr ? { buffer: repr.base as Buffer, repr } : this.newWhole(v.aval);
  }

  /** The buffer behind a window that is known to be whole. */
  wholeBuffer(repr: Repr, aval: Aval): Buffer {
    if (!isBuffer(repr.base) || !isWhole(repr, aval)) {
      throw new LowrankError(`${formatAval(aval)} is not whole in its buffer: this is a bug of lowering`);
    }
    return repr.base;
  }
}
