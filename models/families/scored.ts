/** Decoders that score texts: a linear head without a bias on the state of the last token, as transformers' sequence classifiers have. */
import type { Value } from "../../core/ir/graph.ts";
import type { ClassifierModel, TokenInputs } from "../../core/model.ts";
import { full, reshape } from "../../core/ops/broadcast.ts";
import { asValue } from "../../core/ops/constant.ts";
import { matmul } from "../../core/ops/contract.ts";
import { add, mul, ne, select } from "../../core/ops/elementwise.ts";
import { gather } from "../../core/ops/indexing.ts";
import { reduceMax } from "../../core/ops/reduce.ts";
import { iota } from "../../core/ops/structure.ts";
import { parseConfig } from "../load/config.ts";
import { type Family, hubNameOf, under } from "./family.ts";
import { freshHead } from "./labels.ts";
import type { DecoderFamily } from "./language_model.ts";

/** How the head is made. */
export interface ScoreOptions {
  /** What a head that the file has not is drawn from. 0 by default. */
  readonly seed?: number;
}

const head = "score";

/** The state of each text's last real token, f32[B,D]. */
function lastStates(states: Value, { attentionMask }: TokenInputs): Value {
  const [b, t, width] = states.shape;
  const places = iota([b, t], 1);
  const last = attentionMask === undefined
    ? full([b], t - 1, "i32")
    : reduceMax(select(ne(asValue(attentionMask), 0), places, 0), 1);
  return gather(reshape(states, [b * t, width]), add(mul(iota([b], 0), t), last));
}

/** A decoder's family with one score for a text in place of its next tokens. Where the file has no head, one is drawn. */
export function scored(family: DecoderFamily): Family<ClassifierModel<any>, ScoreOptions> {
  const className = family.className.replace(/(ForCausalLM|LMHeadModel)$/, "ForSequenceClassification");
  const names = { ...family, className, head, headModules: [head] };
  return {
    ...names,
    tiedHead: undefined,
    check: (config) => void family.sizes(config),
    build: (config, stored, { seed = 0 }) => {
      const sizes = family.sizes(config), { width, layers } = sizes;
      const { [family.head]: _, ...shapes } = family.shapes(sizes) as Record<string, unknown>;
      const own = { [`${head}.weight`]: [1, width] };
      const inFile = stored.has(`${head}.weight`);
      const make = (params: any) => {
        const whole = family.over(sizes, params);
        const score = (params: any, inputs: TokenInputs) => {
          const states = whole.hiddenStates(params, inputs)[layers];
          return matmul(lastStates(states, inputs), params[head].weight, { transposeB: true });
        };
        return {
          ...{ architecture: family.modelType, task: "SEQ_CLS", problem: "regression", labels: [head], head } as const,
          ...{ params, sizes, apply: score, applyByBlocks: score, parts: whole.parts, tied: {} },
          ...{ sample: whole.sample, hiddenStates: whole.hiddenStates },
          hubName: (path: string) => hubNameOf(names, path),
          fresh: inFile ? [] : [head],
        } as unknown as ClassifierModel<any>;
      };
      return {
        make,
        shapes: { ...shapes, [head]: { weight: [1, width] } },
        ignore: [...family.ignore ?? [], under(family.head)],
        fresh: inFile ? new Map() : freshHead(own, config.number("initializer_range", 0.02), seed),
        config: parseConfig({ ...config.raw, architectures: [className], num_labels: 1 }, config.path),
      };
    },
  };
}
