import { type Aval, checkAval, formatAval, sizeOf } from "./aval.ts";
import {
  checkHolds,
  type DType,
  type HostArray,
  hostArray,
  hostForm,
  numberOf,
  storageBytes,
  toBf16,
  toF16,
} from "./dtype.ts";
import { LowrankError, ShapeError } from "./errors.ts";
import { bind1, type Primitive, Value } from "./ir/graph.ts";
import { refusePrimitives } from "./opaque.ts";
import { isPacked } from "./packed/blocks.ts";

/** What a tensor needs of the device it lives on; the whole interface is the back ends' business. */
export interface TensorHome {
  /** One line for a person. */
  readonly description: string;
  /** Whether what is called there is only queued, so that one wait costs as much as several calls. */
  readonly queues?: boolean;
  /** Whether a program for one more shape takes little memory. */
  readonly cheapShapes?: boolean;
  /** The most bytes that all buffers together may take, where that is known beforehand. */
  readonly capacity?: number;
  /** Memory of at least this many bytes. */
  allocate(bytes: number): unknown;
  /** Copies host data into the start of it. */
  write(buffer: unknown, data: HostArray): void;
  /** Gives it back. */
  free(buffer: unknown): void;
  /** Copies buffers to the host once everything queued has run. */
  read?(requests: readonly { buffer: unknown; dtype: DType; size: number }[]): Promise<HostArray[]>;
  /** Compiles functions for tensors that live here: what is typed in `core/runtime.ts`. */
  jit?(
    f: (...args: never[]) => unknown,
    options?: { readonly donate?: readonly number[] },
  ): (...args: never[]) => unknown;
  /** The first `size` elements in place, on a device whose memory is the host's. */
  view?(buffer: unknown, dtype: DType, size: number): HostArray;
}

/**
 * A concrete, immutable array on one device. It ends when it is donated to a jitted call, by `using`, or by
 * `dispose()`; one that is only forgotten is freed when the engine collects it.
 */
export class Tensor implements Disposable {
  #buffer: unknown;
  /** Takes a buffer over; {@link tensor} and {@link upload} make one. */
  constructor(readonly home: TensorHome, buffer: unknown, readonly aval: Aval) {
    this.#buffer = buffer;
    unreachable.register(this, { home, buffer }, this);
  }
  /** Sizes, outermost first. */
  get shape(): readonly number[] {
    return this.aval.shape;
  }
  /** What each element is. */
  get dtype(): Aval["dtype"] {
    return this.aval.dtype;
  }
  /** How many elements. */
  get size(): number {
    return sizeOf(this.shape);
  }
  /** Whether the tensor still holds its memory. */
  get alive(): boolean {
    return this.#buffer !== null;
  }
  /** The device's memory behind this tensor. */
  get buffer(): unknown {
    if (this.#buffer === null) {
      throw new LowrankError(
        `this ${formatAval(this.aval)} tensor was donated or disposed of and holds no data any more: ` +
          `use the tensor that the call returned instead`,
      );
    }
    return this.#buffer;
  }
  /** Gives the memory away: the tensor is dead afterwards, its memory is not freed. */
  detachBuffer(): unknown {
    const buffer = this.buffer;
    this.#buffer = null;
    unreachable.unregister(this);
    return buffer;
  }
  /** Frees the memory. Doing so twice is harmless. */
  dispose(): void {
    if (this.#buffer !== null) this.home.free(this.detachBuffer());
  }
  /** What `using` calls. */
  [Symbol.dispose](): void {
    this.dispose();
  }
  /** Shape, dtype and device. */
  toString(): string {
    return `Tensor(${formatAval(this.aval)} on ${this.home.description})`;
  }
  /** For `console.log`: with the first values where they lie in the host's memory. */
  [Symbol.for("Deno.customInspect")](): string {
    const seen = this.alive && !isPacked(this.dtype) && this.home.view?.(this.#buffer, this.dtype, this.#shown);
    return seen ? this.#describe(seen) : this.toString();
  }
  /** For notebooks, which wait: with the first values from any device. */
  async [Symbol.for("Jupyter.display")](): Promise<Record<string, string>> {
    if (!this.alive || isPacked(this.dtype) || !this.home.read) return { "text/plain": this.toString() };
    const [seen] = await this.home.read([{ buffer: this.#buffer, dtype: this.dtype, size: this.#shown }]);
    return { "text/plain": this.#describe(seen) };
  }
  get #shown(): number {
    return Math.min(this.size, 8);
  }
  #describe(first: HostArray): string {
    const values = Array.from(first, (x) => String(Number(numberOf(this.dtype, x).toPrecision(6))));
    return `${this.toString()}: ${values.join(", ")}${this.size > values.length ? ", …" : ""}`;
  }
}

/** A {@link Tensor} that is known to have rank 0: `read` gives a number for it. */
export type ScalarTensor = Tensor & { readonly shape: readonly [] };

refusePrimitives(
  Tensor,
  () =>
    "but its contents lie on a device: write add, mul, lt, select and the like, or wait for them with await read(x)",
);

const unreachable = new FinalizationRegistry<{ home: TensorHome; buffer: unknown }>(({ home, buffer }) =>
  home.free(buffer)
);

/**
 * The contents of tensors as they are at the call, after all that was queued: one wait for those of one device.
 *
 * @throws {LowrankError} when a tensor holds no data any more
 */
export async function readTensors(tensors: readonly Tensor[]): Promise<HostTensor[]> {
  const contents = new Map<Tensor, HostTensor>();
  // All copies are queued before anything is waited for: whatever is done to the tensors afterwards changes nothing.
  const copies = [...new Set(tensors.map((t) => t.home))].map(async (home) => {
    const own = tensors.filter((t) => t.home === home);
    const arrays = await home.read!(own.map((t) => ({ buffer: t.buffer, dtype: t.dtype, size: t.size })));
    own.forEach((t, i) => contents.set(t, { ...t.aval, data: arrays[i] }));
  });
  await Promise.all(copies);
  return tensors.map((t) => contents.get(t)!);
}

/** Array contents on the host, with shape and dtype: what is read from files and from devices. */
export interface HostTensor extends Aval {
  /** Elements in row-major order. */
  readonly data: HostArray;
}

/**
 * Copies host data to a device.
 *
 * @throws {ShapeError} when the data is not as many elements of the dtype as the shape has
 */
export function upload(home: TensorHome, host: HostTensor): Tensor {
  checkHost(host);
  const buffer = home.allocate(storageBytes(host.dtype, sizeOf(host.shape)));
  try {
    home.write(buffer, host.data);
  } catch (error) {
    home.free(buffer);
    throw error;
  }
  return new Tensor(home, buffer, { shape: host.shape, dtype: host.dtype });
}

/** Memory that data does not fill would show what was there before. */
function checkHost(host: HostTensor): void {
  const { shape, dtype, data } = (host ?? {}) as HostTensor;
  checkAval("Cannot upload", { shape, dtype });
  const { Elements, length } = hostForm(dtype, sizeOf(shape));
  if (!(data instanceof Elements) || data.length !== length) {
    throw new ShapeError(
      `${formatAval({ shape, dtype })} is held by a ${Elements.name} of ${length}, but got a ${
        (data as HostArray | undefined)?.constructor.name
      } of ${(data as HostArray | undefined)?.length}`,
    );
  }
}

/** Nested lists of numbers, all of one depth and length. */
export type Nested = number | readonly Nested[];

/**
 * A tensor from nested lists: `tensor(device, [[1, 2], [3, 4]])` is f32[2,2], and `tensor(device, [])` f32[0].
 *
 * @throws {ShapeError} when the lists are ragged, or hold what the dtype does not
 */
export function tensor(home: TensorHome, values: number, dtype?: DType): ScalarTensor;
/** {@link tensor} of lists. */
export function tensor(home: TensorHome, values: Nested, dtype?: DType): Tensor;
export function tensor(home: TensorHome, values: Nested, dtype: DType = "f32"): Tensor {
  const shape: number[] = [];
  for (let at: Nested | undefined = values; Array.isArray(at); at = at[0]) shape.push(at.length);
  checkAval("Cannot make", { shape, dtype });
  if (isPacked(dtype)) throw new ShapeError(`Cannot make a tensor of ${dtype} from numbers: quantize an f32 one`);
  const data = hostArray(dtype, sizeOf(shape));
  const toBits = dtype === "f16" ? toF16 : dtype === "bf16" ? toBf16 : Number;
  let i = 0;
  const fill = (at: Nested, depth: number) => {
    if (depth === shape.length) {
      checkHolds("Cannot make a tensor", dtype, at as number);
      data[i++] = toBits(at as number);
    } else if (!Array.isArray(at) || at.length !== shape[depth]) {
      throw new ShapeError(`the lists of a tensor are ragged: [${shape}] was expected at depth ${depth}`);
    } else at.forEach((x) => fill(x, depth + 1));
  };
  fill(values, 0);
  return upload(home, { shape, dtype, data });
}

/** A tensor that a traced function mentions: a hidden argument, by identity. */
export const tensorPrim: Primitive<{ tensor: Tensor }> = {
  name: "tensor",
  infer: (_, { tensor }) => [tensor.aval],
  vjp: "nondifferentiable",
  batch: ({ inputs }) => [...inputs],
  lowering: { kind: "leaf" },
};

/** What an operation accepts. A number takes the dtype of the other operand, or f32. */
export type Operand = Value | Tensor | number;

/** The value that stands for a tensor in a graph. */
export function tensorValue(tensor: Tensor): Value {
  return bind1(tensorPrim, [], { tensor });
}
