/** What flows into adapted modules, for starts that look at data. */
import { OptionError } from "../../core/errors.ts";
import type { Value } from "../../core/ir/graph.ts";
import type { Leaf, Model } from "../../core/model.ts";
import { full } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { convert } from "../../core/ops/elementwise.ts";
import { concat } from "../../core/ops/structure.ts";
import { perCompiler } from "../../core/runtime.ts";
import { type HostTensor, readTensors, Tensor } from "../../core/tensor.ts";
import { leafValues, trace } from "../../core/trace.ts";
import { flatten } from "../../core/tree.ts";
import type { Adapted } from "../methods/method.ts";
import { side } from "./analyse.ts";
import { type Followed, rewriteGraph } from "./rewrite.ts";

/** The inputs f32[rows, in] of each module in order, as values of a model's parameters and inputs. */
function inputsOf<P, I>(model: Model<P, I, unknown>, sites: readonly Adapted[], params: P, inputs: I): Value[] {
  const { graph } = trace((p: P, x: I) => model.apply(p, x), [params, inputs]);
  const found = sites.map((): Value[] => []);
  const weights = new Map<number, Followed[]>();
  sites.forEach((site, i) => {
    const [rows, columns] = site.aval.shape;
    // A change of nothing: what it meets is seen, and what comes of it stays as it is.
    const zeros = (shape: number[]) => asValue(full(shape, 0));
    const followed: Followed = {
      factors: { pair: [side(zeros([rows, 1]), "last", 0), side(zeros([1, columns]), "first", 1)] },
      use: (kind) => kind === "product" && (site.only === null || site.only === kind) ? { scaling: 1 } : null,
      met: (_kind, _side, _node, met) => {
        if (met !== undefined) found[i].push(convert(met(), "f32"));
      },
      refuse: () => {},
    };
    weights.set(site.leaf, [...weights.get(site.leaf) ?? [], followed]);
  });
  rewriteGraph(graph, leafValues([params, inputs]), weights);
  return found.map((values, i) => {
    if (values.length === 0) {
      throw new OptionError(`the inputs of "${sites[i].path}" can't be seen: leave it out of targets`);
    }
    return values.length === 1 ? values[0] : concat(values, 0);
  });
}

/** One module's inputs in one batch, on the host: rows of padding are left out. */
export interface SeenInputs {
  readonly rows: number;
  readonly width: number;
  readonly data: Float32Array;
  /** How many sequences they are of. */
  readonly sequences: number;
}

const compiled = perCompiler((jit) => jit);

/**
 * The inputs of modules over batches: what each batch of the model's own inputs gives.
 *
 * @throws {OptionError} where there is no batch, or a module's inputs can't be seen
 */
export function observer<P, I>(
  model: Model<P, I, unknown>,
  sites: readonly Adapted[],
): (inputs: I) => Promise<SeenInputs[]> {
  const home = (flatten<Leaf>(model.params).leaves.find((leaf) => leaf instanceof Tensor) as Tensor | undefined)?.home;
  if (home === undefined) {
    throw new OptionError("a start from data needs the model's weights, which are only placeholders");
  }
  const run = compiled(home)((params: P, inputs: I) => inputsOf(model, sites, params, inputs));
  return async (inputs) => {
    const mask = (inputs as { readonly attentionMask?: Leaf }).attentionMask;
    const tensors = run(model.params as any, inputs as any) as unknown as Tensor[];
    const host = await readTensors([...tensors, ...(mask instanceof Tensor ? [mask] : [])]) as HostTensor[];
    for (const tensor of tensors) tensor.dispose();
    const sequences = flatten<Leaf>(inputs).leaves[0].shape[0] ?? 1;
    const keep = mask instanceof Tensor ? host.at(-1)!.data : null;
    return sites.map((_, i) => {
      const { shape: [rows, width], data } = host[i] as HostTensor & { data: Float32Array };
      if (keep === null || keep.length !== rows) return { rows, width, data, sequences };
      const kept = Array.from({ length: rows }, (_, row) => row).filter((row) => keep[row] !== 0);
      const own = new Float32Array(kept.length * width);
      kept.forEach((row, at) => own.set(data.subarray(row * width, (row + 1) * width), at * width));
      return { rows: kept.length, width, data: own, sequences };
    });
  };
}
