import { type Aval, formatAval, sizeOf } from "../../core/aval.ts";
import { storageBytes } from "../../core/dtype.ts";
import { DeviceError, OptionError } from "../../core/errors.ts";
import { exactText, Identities } from "../../core/identity.ts";
import { type Graph, inputPrim, nodesOf, Value } from "../../core/ir/graph.ts";
import { graphKey } from "../../core/ir/key.ts";
import { warn as toStderr } from "../../core/host/output.ts";
import { checkInputs } from "../../core/ir/verify.ts";
import { asValue } from "../../core/ops/constant.ts";
import { Tensor } from "../../core/tensor.ts";
import { countOf } from "../../core/host/format.ts";
import { avalOf, trace } from "../../core/trace.ts";
import { flatten, type FlatTree } from "../../core/tree.ts";
import type { Arguments, Tensors } from "../../core/tree_types.ts";
import { buildOptimised, capturesOf, optimise } from "./compile.ts";
import type { Device } from "../device/device.ts";
import { type Compiled, launch, type Leaf } from "./launch.ts";
import { checkFunction, checkList, checkOptions, type OptionNames } from "../../core/options.ts";

/** How a function is compiled. */
export interface JitOptions<S extends readonly number[] = readonly number[]> {
  /**
   * Positions of arguments whose tensors end with the call: their memory is reused for results. No tensor of theirs may be
   * given twice, in another argument or be mentioned by the function.
   */
  readonly donate?: readonly number[];
  /**
   * Positions of arguments that are no data but settings: the function gets them as they are (a number that a loop counts
   * to, a function, an object) and is compiled again for each. Primitives are compared by type and value, all else by which
   * object it is.
   */
  readonly static?: S;
  /** Where a call runs that neither is given a tensor nor mentions one; others run where their tensors are. */
  readonly device?: Device;
  /** False makes each node a kernel of its own, to see what fusion brings. Default true. */
  readonly fuse?: boolean;
  /**
   * How much time memory is worth. A value that costs at most this many times as much as writing it to memory and reading it
   * back (norms and activations: 2 to 5) is rematerialised where that lowers peak memory; 0 keeps everything. Results are
   * the same, on the CPU bit for bit. Default 8.
   */
  readonly rematerialise?: number;
  /** Called when the eighth program is compiled, which most often means that a shape changes with every call. */
  readonly warn?: (message: string) => void;
}

const jitOptions: OptionNames<JitOptions> = {
  ...{ donate: true, static: true, device: true, fuse: true, rematerialise: true, warn: true },
};

/** Structures of arguments that one function remembers: more than this are most likely new ones at every call. */
const maxKinds = 1000;

const none: readonly never[] = [];

/**
 * The function compiled: it runs where the tensors among its arguments live and returns tensors at once, without waiting.
 * It is traced again for each device and each structure and avals of its arguments; a number is data (f32[]), so a changed one
 * compiles nothing, unless `static` says otherwise. Programs are the device's, which lets those go that were not used for
 * long; functions that trace to one graph share one. An argument may hold values made of tensors: they are computed first,
 * at every call. Within a trace (`grad(jit(f))`, `vmap(jit(f))`, one jitted function in another) it is the plain function.
 *
 * @throws {DeviceError} when no argument is a tensor, or two live on different devices
 * @throws {OptionError} when a position is both donated and static, or a donated tensor is used by another argument too
 */
export function jit<A extends readonly unknown[], R, const S extends readonly number[] = []>(
  f: (...args: A) => R,
  options: JitOptions<S> = {},
): (...args: Arguments<A, S[number]>) => Tensors<R> {
  checkOptions("jit", options, jitOptions);
  checkFunction("jit", f);
  const { donate = [], static: fixed = none as readonly number[], fuse = true, rematerialise, warn = toStderr } =
    options;
  checkPositions(donate, fixed);
  const ids = new Identities();
  const kinds = new Map<string, Kind>();
  let compiled = 0;
  // Parameters come with every call: their avals are written out once.
  const written = new WeakMap<Aval, string>();
  const write = (leaf: Leaf) => {
    if (!(leaf instanceof Tensor)) return formatAval(avalOf(leaf));
    const text = written.get(leaf.aval) ?? formatAval(leaf.aval);
    written.set(leaf.aval, text);
    return text;
  };
  /** The arguments as the function gets them. */
  const whole = (args: unknown, statics: readonly unknown[]) =>
    (args as unknown[]).map((arg, i) => fixed.includes(i) ? statics[fixed.indexOf(i)] : arg);
  const compile = (args: readonly unknown[], statics: readonly unknown[], given: Device | undefined): Compiled => {
    const traced = trace(fixed.length === 0 ? f : (...inputs) => f(...whole(inputs, statics) as unknown as A), args);
    checkInputs(traced.graph, f.name || undefined);
    const device = given ?? homeOf(traced.graph, f.name, options.device);
    const donated = donatedLeaves(args, donate);
    const graph = optimise(traced.graph, device);
    const captured = [...capturesOf(graph).keys()];
    for (const t of captured) if (t.home !== device) throw mixed(t, "a captured tensor", device);
    const key = `${fuse} ${rematerialise} ${[...donated]} ${graphKey(graph, device.programs.ids)}`;
    const program = device.programs.get(key, () => buildOptimised(graph, donated, fuse, device, rematerialise).program);
    const outputs = traced.graph.outputs.map(({ aval }) => ({
      aval,
      bytes: Math.max(4, storageBytes(aval.dtype, sizeOf(aval.shape))),
    }));
    const paths = donated.size > 0 ? flatten(args).paths : [];
    return { device, program, captured, donated, outputs, paths, unflatten: traced.unflatten };
  };
  // The call before: most calls are like it, with a model's hundreds of parameters among their arguments.
  let last: Call | null = null;
  const furthest = Math.max(-1, ...donate);
  const call = (...args: unknown[]) => {
    if (furthest >= args.length) throw new OptionError(noArgument(f.name, furthest, args.length));
    let statics: readonly unknown[] = none;
    if (fixed.length > 0) {
      statics = fixed.map((at) => args[at]);
      args = args.map((arg, i) => fixed.includes(i) ? undefined : arg);
    }
    const before = last && leavesLike(last, args, statics);
    if (before) return launch(last!.compiled, before);
    const settings = statics.map((x, i) => staticText(x, fixed[i], ids));
    const taken = flatten<Leaf | Value>(args);
    if (taken.leaves.some((x) => isValue(x) && isTraced(x))) {
      const values = taken.unflatten(taken.leaves.map((x) => asValue(x)));
      return inline(f, whole(values, statics));
    }
    const { tree, flat, made } = computed<unknown[]>(args, taken);
    try {
      const device = deviceOf(flat.leaves, flat.paths);
      const avals = flat.leaves.map(write);
      const structure = [flat.structure(ids), ...settings].join(" ");
      const key = `${device ? ids.of(device) : ""} ${avals} ${structure}`;
      let kind = kinds.get(key);
      if (!kind?.compiled.program.executable) {
        const first = kind === undefined;
        kind = { compiled: compile(tree, statics, device), structure, avals };
        kinds.set(key, kind);
        if (first && ++compiled === 8) warn(manyPrograms(f.name, kinds, kind));
        for (const [old, { compiled: { program } }] of kinds) {
          if (!program.executable || kinds.size > maxKinds) kinds.delete(old);
        }
      }
      const own = flat.leaves.map((x) => x instanceof Tensor ? x.aval : null);
      last = { leavesOf: flat.leavesOf, avals: own, statics, compiled: kind.compiled };
      return launch(kind.compiled, flat.leaves);
    } finally {
      for (const t of made) t.dispose();
    }
  };
  return call as (...args: Arguments<A, S[number]>) => Tensors<R>;
}

/** A structure and avals of arguments, and what was compiled for them. */
interface Kind {
  readonly compiled: Compiled;
  readonly structure: string;
  readonly avals: readonly string[];
}

/** A call: the structure of its arguments, the avals of the tensors among them, and what it ran. */
interface Call {
  readonly leavesOf: FlatTree<Leaf>["leavesOf"];
  readonly avals: readonly (Aval | null)[];
  readonly statics: readonly unknown[];
  readonly compiled: Compiled;
}

/** The leaves of arguments that go through the same program as a call's; null where that is not known at a glance. */
function leavesLike(call: Call, args: readonly unknown[], statics: readonly unknown[]): Leaf[] | null {
  const { avals, compiled: { program, device } } = call;
  if (!program.executable || !statics.every((x, i) => Object.is(x, call.statics[i]))) return null;
  const leaves = call.leavesOf(args);
  const alike = leaves?.every((x, i) =>
    x instanceof Tensor ? x.aval === avals[i] && x.home === device : typeof x === "number" && avals[i] === null
  );
  return alike ? leaves : null;
}

/** Asked this way round because a Tensor's prototypes end in a proxy, to which `instanceof Value` would walk. */
function isValue(x: Leaf | Value): x is Value {
  return typeof x !== "number" && !(x instanceof Tensor);
}

/** Whether a value depends on an argument of a function that is being traced. */
function isTraced(x: Value): boolean {
  return nodesOf([x]).some((node) => node.prim === inputPrim);
}

/** A call within a trace: the function itself, its results as values. */
function inline(f: (...args: any[]) => unknown, args: readonly unknown[]): unknown {
  const out = flatten<Leaf | Value>(f(...args));
  return out.unflatten(out.leaves.map((x) => asValue(x)));
}

/**
 * The tree with its values computed, which are made of tensors only: what an argument starts as may be such a value. It
 * comes taken apart, since that takes a while for a model's parameters. The tensors `made` for it are to be ended.
 */
export function computed<T>(
  tree: T,
  taken: FlatTree<Leaf | Value> = flatten<Leaf | Value>(tree),
): { readonly tree: T; readonly flat: FlatTree<Leaf>; readonly made: readonly Tensor[] } {
  const values = taken.leaves.filter(isValue);
  if (values.length === 0) return { tree, flat: taken as FlatTree<Leaf>, made: [] };
  const made: Tensor[] = jit(() => values)();
  let i = 0;
  const whole = taken.unflatten(taken.leaves.map((x) => x instanceof Value ? made[i++] : x)) as T;
  return { tree: whole, flat: flatten<Leaf>(whole), made };
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

function checkPositions(donate: readonly number[], fixed: readonly number[]): void {
  for (const [name, positions] of Object.entries({ donate, static: fixed })) {
    checkList("jit", `positions as ${name}`, positions);
    const wrong = positions.find((at) => !Number.isInteger(at) || at < 0);
    if (wrong !== undefined) {
      throw new OptionError(`${name} holds ${wrong}, which is not the position of an argument: count from 0`);
    }
  }
  const both = donate.find((at) => fixed.includes(at));
  if (both !== undefined) {
    throw new OptionError(
      `argument ${both} is both donated and static: only tensors are donated, and static is what is none`,
    );
  }
}

function noArgument(name: string, at: number, count: number): string {
  return `${name || "the function"} is called with ${
    countOf(count, "argument")
  }, and there is none at ${at}, which is ` +
    `donated: positions count from 0`;
}

/** What tells a static argument from others. */
function staticText(x: unknown, position: number, ids: Identities): string {
  if (x instanceof Tensor || x instanceof Value) {
    throw new OptionError(
      `argument ${position} is static, but it is ${x.toString()}: give what is known before anything is computed ` +
        `(under a transform by closing over it, as in grad((x) => f(x, 3))), or take its position out of static`,
    );
  }
  return typeof x === "object" && x !== null ? `#${ids.of(x)}` : exactText(x, ids);
}

/** Where a function without a tensor among its arguments runs. */
function homeOf(graph: Graph, name: string, spare: Device | undefined): Device {
  const [first] = capturesOf(graph).keys();
  if (first) return first.home as Device;
  if (spare) return spare;
  throw new DeviceError(
    `${name || "a jitted function"} was called without a tensor, so it has no device to run on: ` +
      `pass tensors that a device holds, such as tensor(device, [1, 2, 3]), or jit's option device`,
  );
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
      `move them to one device first`,
  );
}

/** Says which aval differed most often between programs of one function. */
function manyPrograms(name: string, kinds: ReadonlyMap<string, Kind>, latest: Kind): string {
  const others = [...kinds.values()].filter((p) => p !== latest && p.structure === latest.structure);
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
