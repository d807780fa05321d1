/** Launches to a Program: which memory each buffer gets, what is done in place, which copies fall away. */
import { sameShape, sizeOf } from "../../core/aval.ts";
import { type DType, storageBytes } from "../../core/dtype.ts";
import type { BufferRef, ContractKernel, MapKernel, Phase, Program, RowKernel, Segment, Step } from "../ir/kernel.ts";
import { type Index, Rewriter, rootsOf, type Store, walk } from "../ir/expr.ts";
import type { Launch } from "../lower/body.ts";
import type { Lowered } from "../lower/lower.ts";
import type { Buffer } from "../lower/repr.ts";

/** Slices of the arena start at multiples of this many bytes: WebGPU's rule for bindings. */
const alignment = 256;

/** Arguments of a program; a donated one's memory may be written. */
export interface Argument {
  readonly dtype: DType;
  readonly size: number;
  readonly donated: boolean;
}

/** A program, and where its memory use peaks. */
export interface Planned {
  readonly program: Program;
  /** The number of the launch at which most of the arena is in use, and of the step that it became. */
  readonly peak: { readonly launch: number; readonly step: number };
}

export function plan({ launches, outputs }: Pick<Lowered, "launches" | "outputs">, args: readonly Argument[]): Planned {
  const placement = new Placement(launches, outputs, args);
  const shared = placement.share();
  const kept = shared.map(({ launch }) => launch);
  const { slots, bytes, fullest } = assign(kept, (b) => placement.root(b), (b) => placement.inArena(b));
  const ref = (buffer: Buffer): BufferRef => {
    const root = placement.root(buffer);
    if (root.argument !== undefined) return { kind: "argument", index: root.argument };
    const output = outputs.indexOf(root);
    return output >= 0 ? { kind: "output", index: output } : { kind: "arena", offset: slots.get(root)! };
  };
  const steps: Step[] = kept.map(({ kernel, buffers }) => ({ kernel, buffers: buffers.map(ref) }));
  const program = {
    arguments: args.map(({ dtype, size }) => ({ dtype, size })),
    outputs: outputs.map((b) => {
      const { argument } = placement.root(b);
      return { dtype: b.dtype, size: b.size, ...(argument !== undefined && { donated: argument }) };
    }),
    arenaBytes: bytes,
    steps,
  };
  return { program, peak: { launch: shared[fullest]?.at ?? 0, step: fullest } };
}

/** Which buffers share memory: decided where a buffer dies at the step that makes another. */
class Placement {
  readonly #parent = new Map<Buffer, Buffer>();
  readonly #lastUse = new Map<Buffer, number>();

  constructor(
    readonly launches: readonly Launch[],
    readonly outputs: readonly Buffer[],
    readonly args: readonly Argument[],
  ) {
    launches.forEach(({ buffers }, i) => buffers.forEach((b) => this.#lastUse.set(b, i)));
  }

  root(b: Buffer): Buffer {
    let at = b;
    for (let up = this.#parent.get(at); up; up = this.#parent.get(at)) at = up;
    return at;
  }

  inArena(root: Buffer): boolean {
    return root.argument === undefined && !this.outputs.includes(root);
  }

  /** Whether the memory of `b` is free to be written once step `i` has read it. */
  #dies(b: Buffer, i: number): boolean {
    const root = this.root(b);
    if (this.outputs.some((o) => this.root(o) === root)) return false;
    if (root.argument !== undefined && !this.args[root.argument].donated) return false;
    return this.#lastUse.get(root)! <= i;
  }

  /** `to` lives in the memory of `from`. An output may only move into an argument: the caller owns both. */
  #alias(from: Buffer, to: Buffer): boolean {
    const root = this.root(from);
    if (storageBytes(from.dtype, from.size) !== storageBytes(to.dtype, to.size)) return false;
    if (this.outputs.includes(to) && root.argument === undefined) return false;
    this.#parent.set(to, root);
    this.#lastUse.set(root, Math.max(this.#lastUse.get(root)!, this.#lastUse.get(to)!));
    return true;
  }

  /** The launches that are left, each with its number among all. */
  share(): { readonly launch: Launch; readonly at: number }[] {
    const kept: { launch: Launch; at: number }[] = [];
    this.launches.forEach((launch, i) => {
      const { elidable } = launch;
      if (elidable && this.#dies(elidable.from, i) && this.#alias(elidable.from, elidable.to)) return;
      const { kernel } = launch;
      const fixed = kernel.kind === "scatter" || kernel.kind === "attention";
      kept.push({ launch: fixed ? launch : this.#inPlace(launch, kernel, i), at: i });
    });
    return kept;
  }

  /** A kernel that reads a dying buffer only where it writes, and not after, does so in place. */
  #inPlace(launch: Launch, kernel: Stores, i: number): Launch {
    for (const store of everywhere(kernel)) {
      const to = launch.buffers[store.operand];
      if (this.#parent.has(to) || kernel.operands[store.operand].access !== "write" || store.index.dynamic) continue;
      if (pointsOf(kernel) !== to.size) continue;
      const from = launch.buffers.findIndex((b, o) =>
        kernel.operands[o].access === "read" && this.#dies(b, i) && readOnlyWhere(kernel, o, store) &&
        launch.buffers.filter((x) => this.root(x) === this.root(b)).length === 1
      );
      if (from < 0 || kernel.operands[from].dtype !== kernel.operands[store.operand].dtype) continue;
      if (!this.#alias(launch.buffers[from], to)) continue;
      const merged = mergeOperands(kernel, from, store.operand);
      const buffers = launch.buffers.filter((_, o) => o !== store.operand);
      return this.#inPlace({ ...launch, kernel: merged, buffers }, merged, i);
    }
    return launch;
  }
}

/** The kernels that say what they store. */
type Stores = MapKernel | RowKernel | ContractKernel;

function pointsOf(kernel: Stores): number {
  const axes = kernel.kind === "map"
    ? kernel.shape
    : kernel.kind === "row"
    ? [...kernel.rows, kernel.cols]
    : [...kernel.batch, kernel.m, kernel.n];
  return sizeOf(axes);
}

/** The stores of a kernel that are done at every point. */
const everywhere = (kernel: Stores): readonly Store[] =>
  kernel.kind === "row" ? kernel.phases.flatMap((p) => p.kind === "each" ? p.stores : []) : kernel.stores;

/** Whether each load of an operand is at the place of `store`, in its phase or before, and nothing is loaded through one. */
function readOnlyWhere(kernel: Stores, operand: number, store: Store): boolean {
  if (
    kernel.kind === "contract" && kernel.segments.some(({ a, b }) => a.operand === operand || b.operand === operand)
  ) {
    return false;
  }
  const phases = kernel.kind === "row" ? kernel.phases : [kernel];
  const written = phases.findIndex((p) => p.kind !== "reduce" && p.stores.includes(store));
  return phases.every((phase, p) =>
    [...walk(phase.kind === "reduce" ? [phase.value] : rootsOf(phase.stores))].every((e) =>
      e.kind !== "load" || e.operand !== operand || (p <= written && sameIndex(e.index, store.index))
    )
  );
}

/** Whether two indices that no value moves are one. */
function sameIndex(a: Index, b: Index): boolean {
  return !a.dynamic && !b.dynamic && a.offset === b.offset && sameShape(a.strides, b.strides);
}

/** The kernel with operand `gone` read and written as operand `kept`. */
function mergeOperands(kernel: Stores, kept: number, gone: number): Stores {
  const renumber = (o: number) => (o === gone ? kept : o) - ((o === gone ? kept : o) > gone ? 1 : 0);
  const to = new Rewriter({ operand: renumber });
  const store = (s: Store) => to.store(s);
  const operands = kernel.operands
    .map((o, i) => i === kept ? { ...o, access: "inout" as const } : o)
    .filter((_, i) => i !== gone);
  if (kernel.kind === "map") return { ...kernel, operands, stores: kernel.stores.map(store) };
  if (kernel.kind === "contract") {
    const side = (s: Segment["a"]) => ({ operand: renumber(s.operand), index: to.index(s.index) });
    const segments = kernel.segments.map((s) => ({ ...s, a: side(s.a), b: side(s.b) }));
    return { ...kernel, operands, segments, stores: kernel.stores.map(store) };
  }
  const phase = (p: Phase): Phase =>
    p.kind === "reduce" ? { ...p, value: to.expr(p.value) } : { ...p, stores: p.stores.map(store) };
  return { ...kernel, operands, phases: kernel.phases.map(phase) };
}

/**
 * Offsets in the arena: the smallest hole that fits, freed after the last step that touches it. `fullest` is the first step
 * at which most is in use.
 */
function assign(
  launches: readonly Launch[],
  root: (b: Buffer) => Buffer,
  inArena: (b: Buffer) => boolean,
): { slots: Map<Buffer, number>; bytes: number; fullest: number } {
  const last = new Map<Buffer, number>();
  launches.forEach(({ buffers }, i) => buffers.forEach((b) => last.set(root(b), i)));
  const slots = new Map<Buffer, number>();
  const holes: { offset: number; bytes: number }[] = [];
  let bytes = 0, used = 0, most = 0, fullest = 0;
  const size = (b: Buffer) => Math.ceil(Math.max(1, storageBytes(b.dtype, b.size)) / alignment) * alignment;
  launches.forEach(({ buffers }, i) => {
    const roots = [...new Set(buffers.map(root))].filter(inArena);
    for (const b of roots) {
      if (slots.has(b)) continue;
      const need = size(b);
      used += need;
      let best = -1;
      holes.forEach((h, at) => {
        if (h.bytes >= need && (best < 0 || h.bytes < holes[best].bytes)) best = at;
      });
      if (best >= 0) {
        const hole = holes[best];
        slots.set(b, hole.offset);
        if (hole.bytes === need) holes.splice(best, 1);
        else holes[best] = { offset: hole.offset + need, bytes: hole.bytes - need };
      } else {
        // A hole at the very end is grown instead of left behind.
        const end = holes.findIndex((h) => h.offset + h.bytes === bytes);
        const offset = end >= 0 ? holes.splice(end, 1)[0].offset : bytes;
        slots.set(b, offset);
        bytes = offset + need;
      }
    }
    if (used > most) [most, fullest] = [used, i];
    for (const b of roots) {
      if (last.get(b) !== i) continue;
      used -= size(b);
      release(holes, { offset: slots.get(b)!, bytes: size(b) });
    }
  });
  return { slots, bytes, fullest };
}

function release(holes: { offset: number; bytes: number }[], freed: { offset: number; bytes: number }): void {
  let at = holes.findIndex((h) => h.offset > freed.offset);
  if (at < 0) at = holes.length;
  holes.splice(at, 0, freed);
  for (const i of [at, at - 1]) {
    const [a, b] = [holes[i], holes[i + 1]];
    if (a && b && a.offset + a.bytes === b.offset) holes.splice(i, 2, { offset: a.offset, bytes: a.bytes + b.bytes });
  }
}
