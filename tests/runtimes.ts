/** What golden cases and model tests run on: the oracle, and every device that is there, behind one interface. */
import { numberOf } from "../core/dtype.ts";
import { Value } from "../core/ir/graph.ts";
import type { Tensor, TensorHome } from "../core/tensor.ts";
import { mapTree } from "../core/tree.ts";
import { jit } from "../kernels/runtime/jit.ts";
import { read } from "../kernels/runtime/read.ts";
import { devices } from "./devices.ts";
import { evaluateOracle, fromOracle, oracleTensor, toHost } from "../testing/oracle.ts";

/** What runs functions of trees of tensors, whatever their types: `jit` and `read` of the kernels, or the oracle's. */
export interface Runtime {
  jit(f: (...args: any[]) => unknown, options?: { readonly donate?: readonly number[] }): (...args: any[]) => any;
  read(tree: unknown): Promise<any>;
}

/** A runtime and the place its tensors live, until it is disposed of. */
export interface OpenRuntime extends Runtime, Disposable {
  readonly home: TensorHome;
  /** Whether long runs are cut short on it. */
  readonly slow?: boolean;
}

/** A runtime by name, opened when a test needs it. */
export interface RuntimeCase {
  readonly name: string;
  open(): Promise<OpenRuntime>;
}

const oracleHome = oracleTensor([], [0]).home;

/** Functions traced and evaluated in float64, one value after the other. */
export const oracleRuntime: OpenRuntime = {
  home: oracleHome,
  slow: true,
  jit: (f) => oracleHome.jit!(f),
  // deno-lint-ignore require-await -- a promise, as devices give one
  read: async (tree) =>
    mapTree(tree, (x) => {
      const own = x instanceof Value ? evaluateOracle({ inputs: [], outputs: [x] }, [])[0] : fromOracle(x as Tensor);
      const host = toHost(own);
      return host.shape.length === 0 ? numberOf(host.dtype, host.data[0]) : host;
    }),
  [Symbol.dispose]: () => {},
};

/** The oracle first, then the devices. */
export const runtimes: readonly RuntimeCase[] = [
  { name: "the oracle", open: () => Promise.resolve(oracleRuntime) },
  ...devices.map(({ name, open }) => ({
    name,
    open: async () => {
      const device = await open();
      return { home: device, jit, read, [Symbol.dispose]: () => device[Symbol.dispose]() };
    },
  })),
];
