import { type Aval, formatAval, sizeOf } from "../core/aval.ts";
import { storageBytes } from "../core/dtype.ts";
import { DeviceError, LowrankError } from "../core/errors.ts";
import { inputPrim, nodesOf, Value } from "../core/ir/graph.ts";
import { checkInputs } from "../core/ir/verify.ts";
import { type HostTensor, Tensor, upload } from "../core/tensor.ts";
import { avalOf, trace } from "../core/trace.ts";
import { flatten, type FlatTree } from "../core/tree.ts";
import { build } from "./compile.ts";
import type { Device, DeviceBuffer, Executable } from "./device/device.ts";

/** How a function is compiled. */
export interface JitOptions {
  /** Positions of arguments whose tensors end with the call: their memory is reused for results. */
  readonly donate?: readonly number[];
  /** Programs kept, one per structure and shapes of arguments; the oldest goes first. Default 64. */
  readonly cache?: number;
  /** False makes each node a kernel of its own, to see what fusion brings. Default true. */
  readonly fuse?: boolean;
  /**
   * What memory is worth in time. What costs at most so many times a trip to memory and back (norms and activations 2 to 5)
   * is made again rather than held, where that lowers the peak; 0 holds everything. Results are the same, on the CPU bit for
   * bit. Default 8.
   */
  readonly recompute?: number;
  /** Told when the eighth program is compiled, which most often means that a shape changes with every call. */
  readonly warn?: (message: string) => void;
}

interface Compiled {
  readonly executable: Executable;
  readonly captured: readonly Tensor[];
  /** Leaves of donated arguments. */
  readonly donated: ReadonlySet<number>;
  readonly outputs: readonly { readonly aval: Aval; readonly donated?: number }[];
  readonly structure: string;
  readonly avals: readonly string[];
  unflatten(leaves: readonly unknown[]): unknown;
}

type Leaf = Tensor | number;

/**
 * The function compiled: it runs where the tensors among its arguments live and returns tensors at once, without waiting.
 * It is traced anew for each structure and avals of its arguments; a number is data (f32[]), so a changed one compiles
 * nothing. An argument may hold values made of tensors: they are computed first, at every call.
 *
 * @throws {DeviceError} when no argument is a tensor, or two live on different devices
 */
export function jit<F extends (...args: any[]) => any>(f: F, options: JitOptions = {}): (...args: any[]) => any {
  const { donate = [], cache = 64, fuse = true, recompute, warn = console.warn } = options;
  const programs = new Map<string, Compiled>();
  let compiled = 0;
  // Parameters come with every call: their avals are written out once.
  const written = new WeakMap<Aval, string>();
  const write = (leaf: Leaf) => {
    if (!(leaf instanceof Tensor)) return formatAval(avalOf(leaf));
    const known = written.get(leaf.aval) ?? formatAval(leaf.aval);
    written.set(leaf.aval, known);
    return known;
  };
  // The call before: most calls are like it, with a model's hundreds of parameters among their arguments.
  let last: Call | null = null;
  return (...args: unknown[]) => {
    const leaves = last && leavesLike(last, args);
    if (leaves) return launch(last!.program, leaves, last!.device);
    const { tree, flat } = computed(args);
    args = tree as unknown[];
    const avals = flat.leaves.map(write);
    let device = deviceOf(flat.leaves, flat.paths);
    const key = `${device?.key} ${avals} ${flat.structure}`;
    let program = programs.get(key);
    if (!program) {
      program = compile(f, args, donate, device, fuse, recompute);
      programs.set(key, program);
      if (++compiled === 8) warn(manyPrograms(f.name, programs, program));
      if (programs.size > cache) {
        const [oldest, old] = programs.entries().next().value!;
        old.executable.free();
        programs.delete(oldest);
      }
    }
    device ??= program.captured[0].home as Device;
    const avalsOf = flat.leaves.map((x) => x instanceof Tensor ? x.aval : null);
    last = { leavesOf: flat.leavesOf, avals: avalsOf, program, device };
    return launch(program, flat.leaves, device);
  };
}

/** A call: the structure of its arguments, the avals of the tensors among them, and what it ran. */
interface Call {
  readonly leavesOf: FlatTree<Leaf>["leavesOf"];
  readonly avals: readonly (Aval | null)[];
  readonly program: Compiled;
  readonly device: Device;
}

/** The leaves of arguments that go through the same program as a call's; null where that is not known at a glance. */
function leavesLike({ leavesOf, avals, device }: Call, args: readonly unknown[]): Leaf[] | null {
  const leaves = leavesOf(args);
  const alike = leaves?.every((x, i) =>
    x instanceof Tensor ? x.aval === avals[i] && x.home === device : typeof x === "number" && avals[i] === null
  );
  return alike ? leaves : null;
}

/**
 * The tree with its values computed, which are made of tensors only: what an argument starts as may be such a value. It
 * comes taken apart, since that takes a while for a model's parameters.
 */
function computed(tree: unknown): { readonly tree: unknown; readonly flat: FlatTree<Leaf> } {
  const flat = flatten<Leaf | Value>(tree);
  const values = flat.leaves.filter((x) => x instanceof Value);
  if (values.length === 0) return { tree, flat: flat as FlatTree<Leaf> };
  const open = values.find((value) => nodesOf([value]).some((node) => node.prim === inputPrim));
  if (open) {
    throw new LowrankError(`a jitted function was called with ${open} while tracing: call it without jit there`);
  }
  const tensors: Tensor[] = jit(() => values)();
  let i = 0;
  const whole = flat.unflatten(flat.leaves.map((x) => x instanceof Value ? tensors[i++] : x));
  return { tree: whole, flat: flatten<Leaf>(whole) };
}

/** Which flat leaves belong to donated arguments. */
function donatedLeaves(args: readonly unknown[], donate: readonly number[]): Set<number> {
  const found = new Set<number>();
  let at = 0;
  args.forEach((arg, i) => {
    const count = flatten(arg).leaves.length;
    if (donate.includes(i)) { for (let k = at; k < at + count; k++) found.add(k); }
    at += count;
  });
  return found;
}

function compile(
  f: (...args: any[]) => unknown,
  args: readonly unknown[],
  donate: readonly number[],
  device: Device | undefined,
  fuse: boolean,
  recompute: number | undefined,
): Compiled {
  const traced = trace(f, args);
  checkInputs(traced.graph, f.name || undefined);
  const flat = flatten<Leaf>(args);
  const donated = donatedLeaves(args, donate);
  const owned = new Set([...donated].filter((i) => flat.leaves[i] instanceof Tensor));
  const { program, captured } = build(traced.graph, owned, fuse, device, recompute);
  const home = device ?? captured[0]?.home as Device | undefined;
  if (!home) {
    throw new DeviceError(
      `${f.name || "a jitted function"} was called without a tensor, so it has no device to run on: ` +
        `pass tensors that a device holds, such as tensor(device, [1, 2, 3])`,
    );
  }
  for (const t of captured) if (t.home !== home) throw mixed(t, "a captured tensor", home);
  return {
    executable: home.compile(program),
    captured,
    donated,
    outputs: traced.graph.outputs.map((v, i) => ({ aval: v.aval, donated: program.outputs[i].donated })),
    structure: flat.structure,
    avals: flat.leaves.map((x) => formatAval(avalOf(x))),
    unflatten: traced.unflatten,
  };
}

function launch(program: Compiled, leaves: readonly Leaf[], device: Device): unknown {
  const scalars: Tensor[] = [];
  const tensors = leaves.map((x) => {
    if (x instanceof Tensor) return x;
    const scalar = upload(device, { shape: [], dtype: "f32", data: new Float32Array([x]) });
    scalars.push(scalar);
    return scalar;
  });
  const buffers = [...tensors, ...program.captured].map((t) => t.buffer as DeviceBuffer);
  const outputs = program.outputs.map(({ aval, donated: from }) =>
    from !== undefined ? buffers[from] : device.allocate(Math.max(4, storageBytes(aval.dtype, sizeOf(aval.shape))))
  );
  program.executable.run(buffers, outputs);
  for (const s of scalars) s.dispose();
  const reused = new Set(program.outputs.map((o) => o.donated));
  for (const i of program.donated) {
    const x = leaves[i];
    if (!(x instanceof Tensor) || !x.alive) continue;
    if (reused.has(i)) x.surrender();
    else x.dispose();
  }
  return program.unflatten(outputs.map((buffer, i) => new Tensor(device, buffer, program.outputs[i].aval)));
}

function deviceOf(leaves: readonly Leaf[], paths: readonly string[]): Device | undefined {
  let found: Device | undefined;
  leaves.forEach((x, i) => {
    if (!(x instanceof Tensor)) return;
    if (found && x.home !== found) throw mixed(x, `argument ${paths[i]}`, found);
    found = x.home as Device;
  });
  return found;
}

function mixed(t: Tensor, what: string, other: { description: string }): DeviceError {
  return new DeviceError(
    `${what} (${formatAval(t.aval)}) lives on ${t.home.description}, but another one on ${other.description}: ` +
      `bring them to one device first`,
  );
}

/** Says which aval differed most often between programs of one function. */
function manyPrograms(name: string, programs: ReadonlyMap<string, Compiled>, latest: Compiled): string {
  const others = [...programs.values()].filter((p) => p !== latest && p.structure === latest.structure);
  const changing = latest.avals.findIndex((a, i) => others.some((p) => p.avals[i] !== a));
  const detail = changing < 0
    ? "the structure of its arguments changes"
    : `leaf ${changing} is now ${latest.avals[changing]}, before it was ${
      others.find((p) => p.avals[changing] !== latest.avals[changing])!.avals[changing]
    }`;
  return `${
    name || "a jitted function"
  } has been compiled 8 times: ${detail}. Pad to few shapes, or pass the varying part as data`;
}

/**
 * The contents of every tensor in a tree, after all that was queued: one wait for the whole tree. Tensors of rank 0 become
 * numbers, others `{ shape, dtype, data }`. With `release` the tensors end here.
 */
export async function read(tree: unknown, options: { release?: boolean } = {}): Promise<any> {
  const flat = flatten<unknown>(computed(tree).tree, (x) => x instanceof Tensor);
  const tensors = flat.leaves as Tensor[];
  const homes = new Set(tensors.map((t) => t.home as Device));
  const contents = new Map<Tensor, HostTensor>();
  for (const home of homes) {
    const own = tensors.filter((t) => t.home === home);
    const arrays = await home.read(
      own.map((t) => ({ buffer: t.buffer as DeviceBuffer, dtype: t.dtype, size: t.size })),
    );
    own.forEach((t, i) => contents.set(t, { ...t.aval, data: arrays[i] }));
  }
  if (options.release) { for (const t of new Set(tensors)) t.dispose(); }
  return flat.unflatten(tensors.map((t) => {
    const host = contents.get(t)!;
    return host.shape.length === 0 ? host.data[0] : host;
  }));
}

/** Computes a tree of values built from tensors, and reads it. */
export async function evaluate(tree: unknown): Promise<any> {
  const results = jit(() => tree)();
  return await read(results, { release: true });
}
