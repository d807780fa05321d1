/** Rows held against the tables of the model that is to learn from them. */
import { DataError } from "../core/errors.ts";
import { newInput, nodesOf, type Value } from "../core/ir/graph.ts";
import { gatherPrim } from "../core/ops/indexing.ts";
import { reshapePrim } from "../core/ops/broadcast.ts";
import { asValue } from "../core/ops/constant.ts";
import { mapTree } from "../core/tree.ts";
import type { Leaf } from "../core/model.ts";
import type { Example } from "../data/examples.ts";
import type { Examples } from "../data/data_set.ts";
import type { Bounds } from "../data/rows.ts";
import type { Objective } from "./objectives/objective.ts";
import type { Trainee } from "./trainee.ts";

/** The rows of the table that a model looks tokens up in, and the columns of what it gives. */
function boundsOf<P, F>({ trainable, frozen, apply }: Trainee<P, F>): Bounds {
  const inputIds = newInput({ shape: [1, 2], dtype: "i32" });
  const stand = <T>(tree: T): T => mapTree(tree, (leaf: unknown) => newInput((leaf as Leaf).aval)) as T;
  const logits = asValue(apply(stand(trainable), stand(frozen), { inputIds }));
  const isIds = (value: Value): boolean =>
    value === inputIds || (value.node.prim === reshapePrim && isIds(value.node.inputs[0]));
  const looked = nodesOf([logits]).filter(({ prim, inputs }) => prim === gatherPrim && isIds(inputs[1]));
  return { rows: Math.min(...looked.map(({ inputs: [table] }) => table.shape[0])), columns: logits.shape.at(-1)! };
}

/**
 * The same rows, each checked: all of them now, or where they are read on demand when they are asked for.
 *
 * @throws {DataError} for a row with a token id that the model has no row for, or a label that it has no column for
 */
export function checkedRows<P, F>(
  data: Examples | readonly Example[],
  trainee: Trainee<P, F>,
  objective: Objective,
): Examples {
  const bounds = boundsOf(trainee);
  const at = (index: number): Example | undefined => {
    const example = data.at(index);
    const problem = example && objective.problem(example, bounds);
    if (problem) throw new DataError(`row ${index + 1} ${problem}`);
    return example;
  };
  if ("streamed" in data && data.streamed) return { length: data.length, streamed: true, at };
  for (let i = 0; i < data.length; i++) at(i);
  return data;
}
