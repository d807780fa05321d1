/**
 * The oracle: what a graph means, in float64 and plain loops. It shares no arithmetic with the library and the library
 * never imports it. A f32 value is a real number here; f16 and bf16 values are rounded, since that is what they are for.
 */
import { type Aval, formatAval, sizeOf } from "../core/aval.ts";
import { fromBf16, fromF16, type HostArray, hostArray, toBf16, toF16 } from "../core/dtype.ts";
import { type Graph, newInput, type Node, nodesOf, Value } from "../core/ir/graph.ts";
import { asValue } from "../core/ops/constant.ts";
import { type HostTensor, Tensor, type TensorHome } from "../core/tensor.ts";
import { flatten, isLeaf, mapTree } from "../core/tree.ts";
import { isPacked } from "../core/packed/blocks.ts";
import { decodePacked } from "./packed_reference.ts";
import { rules, termRules } from "./oracle_rules.ts";
import type { OracleTensor } from "./oracle_tensor.ts";
import { checkList } from "../core/options.ts";

export type { OracleTensor } from "./oracle_tensor.ts";

/** Where the oracle's tensors live: a cell with either its own numbers or what the host wrote into it. */
class OracleHome implements TensorHome {
  readonly description = "the oracle";
  allocate(): Cell {
    return { data: new Float64Array() };
  }
  write(cell: Cell, data: HostArray): void {
    cell.data = data;
  }
  free(): void {}
  jit(f: (...args: any[]) => unknown): (...args: unknown[]) => unknown {
    const isOracleTensor = (x: unknown) => (x as OracleTensor | null)?.data instanceof Float64Array;
    return (...args) => mapTree(runOracle(f, ...args), (x: OracleTensor) => toOracle(x), isOracleTensor);
  }
  read(requests: readonly { buffer: Cell; dtype: Aval["dtype"]; size: number }[]): Promise<HostArray[]> {
    return Promise.resolve(
      requests.map(({ buffer: { data }, dtype, size }) =>
        data instanceof Float64Array ? toHost({ shape: [size], dtype, data }).data : data
      ),
    );
  }
}
type Cell = { data: Float64Array | HostArray };
const home: TensorHome = new OracleHome();

/** A host array as numbers: the bits of f16 and bf16 are read as what they stand for. */
export function fromHost({ shape, dtype, data }: HostTensor): OracleTensor {
  if (isPacked(dtype)) {
    const { values, terms } = decodePacked(dtype, sizeOf(shape), data);
    return { shape, dtype, data: values, packed: { words: data as Uint32Array<ArrayBuffer>, terms } };
  }
  const read = dtype === "f16" ? fromF16 : dtype === "bf16" ? fromBf16 : (x: number) => x;
  return { shape, dtype, data: Float64Array.from(data, read) };
}

/** Numbers rounded to what the host holds, f16 and bf16 as their bits. */
export function toHost({ shape, dtype, data, packed }: OracleTensor): HostTensor {
  if (packed !== undefined) return { shape, dtype, data: packed.words };
  const host = hostArray(dtype, data.length);
  host.set(dtype === "f16" ? data.map(toF16) : dtype === "bf16" ? data.map(toBf16) : data);
  return { shape, dtype, data: host };
}

/** A tensor that lives on the oracle, for parameters and captures. */
export function toOracle({ shape, dtype, data }: OracleTensor): Tensor {
  return new Tensor(home, { data } satisfies Cell, { shape, dtype });
}

/** The numbers of a tensor that lives on the oracle. */
export function fromOracle(tensor: Tensor): OracleTensor {
  if (tensor.home !== home) throw new Error(`${tensor.toString()} does not live on the oracle`);
  const { data } = tensor.buffer as Cell;
  return data instanceof Float64Array ? { ...tensor.aval, data } : fromHost({ ...tensor.aval, data });
}

/** A tensor on the oracle from numbers: `oracleTensor([2, 3], [1, 2, 3, 4, 5, 6])` is f32[2,3]. */
export function oracleTensor(
  shape: readonly number[],
  data: ArrayLike<number>,
  dtype: Aval["dtype"] = "f32",
): Tensor {
  checkList("oracleTensor", "sizes as its shape", shape);
  return toOracle({ shape, dtype, data: Float64Array.from(data) });
}

/** Every value of a graph with its size: Σ|terms|, the sum of the magnitudes of everything that was added up to make it. */
export interface OracleTerms {
  readonly value: OracleTensor;
  readonly terms: Float64Array;
}

/** The graph's outputs for `args`, one per input. `tensor` reads the tensors that the graph mentions. */
export function evaluateOracle(
  graph: Graph,
  args: readonly OracleTensor[],
  tensor: (t: Tensor) => OracleTensor = fromOracle,
): OracleTensor[] {
  return walk(graph, args, tensor, false).map((x) => x.value);
}

/**
 * The graph's outputs, each with Σ|terms|: through sums, products and moves the magnitudes are carried along, so that a
 * chain of products bounds its own rounding; any other operation starts again from |value|.
 */
export function evaluateTerms(
  graph: Graph,
  args: readonly OracleTensor[],
  tensor: (t: Tensor) => OracleTensor = fromOracle,
): OracleTerms[] {
  return walk(graph, args, tensor, true);
}

function walk(
  graph: Graph,
  args: readonly OracleTensor[],
  tensor: (t: Tensor) => OracleTensor,
  withTerms: boolean,
): OracleTerms[] {
  const env = new Map<Value, OracleTerms>();
  const none = new Float64Array();
  const set = (value: Value, data: Float64Array, terms: Float64Array) =>
    env.set(value, { value: { ...value.aval, data }, terms });
  const magnitude = (data: Float64Array) => withTerms ? data.map(Math.abs) : none;
  graph.inputs.forEach((input, i) => {
    if (formatAval(args[i]) !== formatAval(input.aval)) {
      throw new Error(`argument ${i} is ${formatAval(args[i])}, but the graph takes ${formatAval(input.aval)}`);
    }
    set(input, args[i].data, withTerms ? args[i].packed?.terms ?? magnitude(args[i].data) : none);
  });
  const run = (node: Node) => {
    if (node.prim.name === "input") throw new Error(`${node.outs[0]} is an input of another graph`);
    if (node.prim.name === "tensor") {
      const { data } = tensor(node.params.tensor);
      return set(node.outs[0], data, magnitude(data));
    }
    const inputs = node.inputs.map((v) => env.get(v)!);
    if (node.prim.define !== undefined) {
      const formal = node.inputs.map((v) => newInput(v.aval));
      const body = { inputs: formal, outputs: node.prim.define(formal, node.params) };
      walk(body, inputs.map((x) => x.value), tensor, withTerms).forEach((x, i) => env.set(node.outs[i], x));
      return;
    }
    const rule = rules[node.prim.name];
    if (rule === undefined) throw new Error(`the oracle has no rule for ${node.prim.name}`);
    const avals = node.outs.map((v) => v.aval);
    const values = rule(inputs.map((x) => x.value), node.params, avals);
    const carried = withTerms ? termRules[node.prim.name] : undefined;
    const terms = carried === undefined ? values.map(magnitude) : carried(
      inputs.map((x) => x.value),
      inputs.map((x) => ({ ...x.value, data: x.terms })),
      node.params,
      avals,
    );
    node.outs.forEach((v, i) => set(v, values[i], terms[i]));
  };
  for (const node of nodesOf(graph.outputs, (n) => env.has(n.outs[0]))) run(node);
  return graph.outputs.map((v) => env.get(v)!);
}

function isArgument(x: unknown): boolean {
  return isLeaf(x) || (typeof x === "object" && x !== null && (x as OracleTensor).data instanceof Float64Array);
}

/**
 * `f` run on the oracle: trees of oracle tensors (as {@link OracleTensor} or {@link Tensor}) and numbers in, the returned
 * tree with {@link OracleTensor} leaves out.
 */
export function runOracle(f: (...args: any[]) => unknown, ...args: unknown[]): any {
  const flat = flatten<OracleTensor | Tensor | Value | number>(args, isArgument);
  const data = flat.leaves.map((x): OracleTensor =>
    typeof x === "number"
      ? { shape: [], dtype: "f32", data: Float64Array.of(x) }
      : x instanceof Tensor
      ? fromOracle(x)
      : x instanceof Value
      ? evaluateOracle({ inputs: [], outputs: [x] }, [])[0]
      : x
  );
  const inputs = data.map((x, i) => newInput({ shape: x.shape, dtype: x.dtype }, flat.paths[i]));
  const out = flatten<Value | Tensor | number>(f(...flat.unflatten(inputs) as unknown[]));
  return out.unflatten(evaluateOracle({ inputs, outputs: out.leaves.map((x) => asValue(x)) }, data));
}
