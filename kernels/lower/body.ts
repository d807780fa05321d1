/**
 * From a kernel's body, over the axes that the graph has and on memory, to the kernel: axes that are walked as one become
 * one, operands are numbered. It is done here, once; no back end looks for axes to fold.
 */
import { accessesOf, constOf, type Expr, type Index, opOf, Rewriter, rootsOf, type Store, walk } from "../ir/expr.ts";
import { foldAxes } from "../ir/fold.ts";
import type { Kernel, Operand, Phase, RowKernel, Segment } from "../ir/kernel.ts";
import type { Buffer, Memory } from "./repr.ts";

/** A kernel and the buffers it is given, before a plan has placed them. */
export interface Launch {
  readonly kernel: Kernel;
  readonly buffers: readonly Buffer[];
  /** A copy that is not needed where the plan can give `to` the memory of `from`. */
  readonly elidable?: { readonly from: Buffer; readonly to: Buffer };
}

/** Stores at every point of `shape`. */
export interface MapBody extends Pick<Launch, "elidable"> {
  readonly kind: "map";
  readonly shape: readonly number[];
  readonly stores: readonly Store<Memory>[];
}

/** Phases over `shape`, whose axes are those of rows and those along a row, which are walked as one. */
export interface RowBody {
  readonly kind: "row";
  readonly shape: readonly number[];
  readonly rows: readonly number[];
  readonly columns: readonly number[];
  readonly phases: readonly Phase<Memory>[];
}

/** One side of a product: its index over the axes of the output, and its step along k. */
export interface Side {
  readonly operand: Buffer;
  readonly index: Index<Memory>;
  readonly step: number;
}

/** Products summed over `shape` = [batch…, rows…, columns…], of which `batch` and `free` count the first two. */
export interface ContractBody {
  readonly kind: "contract";
  readonly shape: readonly number[];
  readonly batch: number;
  readonly free: number;
  readonly segments: readonly (Pick<Segment, "k" | "rounded"> & { readonly a: Side; readonly b: Side })[];
  readonly stores: readonly Store<Memory>[];
}

export type Body = MapBody | RowBody | ContractBody;

/** The kernel of a body, which has no empty axis. */
export function launchOf(body: Body): Launch {
  const operands = new Operands();
  const kernel = kernelOf(body, operands);
  const elidable = body.kind === "map" ? body.elidable : undefined;
  return { kernel: { ...kernel, operands: operands.list() }, buffers: operands.buffers, ...(elidable && { elidable }) };
}

function kernelOf(body: Body, operands: Operands): Kernel {
  const { shape } = body;
  const axes = shape.map((_, i) => i);
  switch (body.kind) {
    case "map": {
      const { stores } = body;
      const folded = foldAxes(shape, axes, indicesOf([], stores));
      const to = operands.rewriter(folded.keep);
      return { kind: "map", operands: [], shape: folded.shape, stores: stores.map((s) => to.store(s)) };
    }
    case "row": {
      const { phases } = body;
      const values = phases.flatMap((p) => p.kind === "reduce" ? [p.value] : []);
      const indices = indicesOf(values, phases.flatMap((p) => p.kind === "reduce" ? [] : p.stores));
      const rows = foldAxes(shape, body.rows, indices), columns = foldAxes(shape, body.columns, indices);
      const to = operands.rewriter([...rows.keep, columns.keep[0] ?? -1]);
      const finished = phases.map((p): Phase =>
        p.kind === "reduce" ? { ...p, value: to.expr(p.value) } : { ...p, stores: p.stores.map((s) => to.store(s)) }
      );
      const kernel: RowKernel = {
        kind: "row",
        operands: [],
        rows: rows.shape,
        cols: columns.shape[0] ?? 1,
        phases: finished,
      };
      return kernel;
    }
    case "contract": {
      const { stores, segments } = body;
      const indices = [...indicesOf([], stores), ...segments.flatMap((s) => [s.a.index, s.b.index])];
      const rows = foldAxes(shape, axes.slice(body.batch, body.batch + body.free), indices);
      const columns = foldAxes(shape, axes.slice(body.batch + body.free), indices);
      // Where rows or columns do not read as one axis everywhere, the outer ones become batch axes.
      const outer = [...axes.slice(0, body.batch), ...rows.keep.slice(0, -1), ...columns.keep.slice(0, -1)];
      const outerShape = [...shape];
      for (const { keep, shape } of [rows, columns]) keep.slice(0, -1).forEach((a, i) => outerShape[a] = shape[i]);
      const batch = foldAxes(outerShape, outer, indices);
      const to = operands.rewriter([...batch.keep, rows.keep.at(-1) ?? -1, columns.keep.at(-1) ?? -1]);
      const n = batch.keep.length;
      const side = ({ operand, index, step }: Side, kFirst: boolean) => {
        const at = to.index(index), { strides } = at;
        const own = kFirst ? [step, strides[n + 1]] : [strides[n], step];
        return { operand: operands.read(operand), index: { ...at, strides: [...strides.slice(0, n), ...own] } };
      };
      return {
        kind: "contract",
        operands: [],
        batch: batch.shape,
        m: rows.shape.at(-1) ?? 1,
        n: columns.shape.at(-1) ?? 1,
        segments: segments.map(({ a, b, ...rest }) => ({ ...rest, a: side(a, false), b: side(b, true) })),
        stores: stores.map((s) => to.store(s)),
      };
    }
  }
}

/** Every index that some expressions and stores mention, those inside moving indices included. */
export function indicesOf(exprs: readonly Expr<Memory>[], stores: readonly Store<Memory>[]): Index<Memory>[] {
  return accessesOf(walk([...exprs, ...rootsOf(stores)]), stores).map(({ index }) => index);
}

/** Numbers the buffers of a kernel as it mentions them. */
class Operands {
  readonly buffers: Buffer[] = [];
  readonly #written = new Set<Buffer>();
  readonly #read = new Set<Buffer>();

  read(buffer: Buffer): number {
    this.#read.add(buffer);
    return this.#place(buffer);
  }

  #write(buffer: Buffer): number {
    this.#written.add(buffer);
    return this.#place(buffer);
  }

  #place(buffer: Buffer): number {
    const at = this.buffers.indexOf(buffer);
    return at >= 0 ? at : this.buffers.push(buffer) - 1;
  }

  list(): Operand[] {
    return this.buffers.map((buffer) => ({
      dtype: buffer.dtype,
      size: buffer.size,
      access: !this.#written.has(buffer) ? "read" : this.#read.has(buffer) ? "inout" : "write",
    }));
  }

  /** From expressions on memory to those over the axes that are kept (-1 is one of size 1). */
  rewriter(keep: readonly number[]): Rewriter<Memory, number> {
    const strides = (old: readonly number[]) => keep.map((axis) => axis < 0 ? 0 : old[axis] ?? 0);
    return new Rewriter<Memory, number>({
      // The counter is never written, and read below.
      operand: (memory, access) => access === "read" ? this.read(memory as Buffer) : this.#write(memory as Buffer),
      strides,
      leaf: (expr) => {
        if (expr.kind !== "load" || expr.operand !== "counter") return null;
        const value = counterOf(expr.index.offset, strides(expr.index.strides));
        return expr.type === "i32" ? value : opOf("convert", expr.type, value);
      },
    });
  }
}

/** An element of the counter: arithmetic on the axes. */
function counterOf(offset: number, strides: readonly number[]): Expr {
  let sum: Expr | null = offset === 0 ? null : constOf("i32", offset);
  strides.forEach((stride, axis) => {
    if (stride === 0) return;
    const counter: Expr = { kind: "axis", type: "i32", axis };
    const term = stride === 1 ? counter : opOf<number>("mul", "i32", counter, constOf("i32", stride));
    sum = sum ? opOf("add", "i32", sum, term) : term;
  });
  return sum ?? constOf("i32", 0);
}
