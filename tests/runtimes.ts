/** What golden cases and model tests run on: the oracle, and every device that is there, behind one interface. */
import { numberOf } from "../core/dtype.ts";
import { Value } from "../core/ir/graph.ts";
import type { Runtime } from "../core/runtime.ts";
import type { Tensor, TensorHome } from "../core/tensor.ts";
import { mapTree } from "../core/tree.ts";
import { jit, read } from "../kernels/runtime/jit.ts";
import { devices } from "./devices.ts";
import {
  evaluateOracle,
  fromOracle,
  type OracleTensor,
  oracleTensor,
  runOracle,
  toHost,
  toOracle,
} from "../testing/oracle.ts";

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

const isOracleTensor = (x: unknown) => (x as OracleTensor | null)?.data instanceof Float64Array;

/** Functions traced and evaluated in float64, one value after the other. */
export const oracleRuntime: OpenRuntime = {
  home: oracleTensor([], [0]).home,
  slow: true,
  jit: (f) => (...args) => mapTree(runOracle(f, ...args), (x: OracleTensor) => toOracle(x), isOracleTensor),
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
