/** What objectives have in common whose examples are one sequence each. */
import { DataError } from "../../core/errors.ts";
import { ignoredLabel } from "../../core/nn/loss.ts";
import { outsideTable } from "../../models/token_inputs.ts";
import type { Bounds, RowReader } from "../../data/rows.ts";

/** An example is as long as its ids, and a part of it is an example. */
export const oneSequence: Pick<RowReader, "lengthOf" | "cut"> = {
  lengthOf: (example) => {
    // What types can't say to a program that is not checked: rows as they stand in a file.
    if (example?.ids !== undefined) return example.ids.length;
    throw new DataError(
      "a row to learn from has no token ids: give encodeRow(row, tokenizer) for it, or the path of a file of rows",
    );
  },
  cut: (example, start, end) => ({
    ...example,
    ids: example.ids.slice(start, end),
    labels: example.labels.slice(start, end),
    ...(example.tokenTypes && { tokenTypes: example.tokenTypes.slice(start, end) }),
  }),
};

/** What is wrong with ids or labels, after the name of the row; null where nothing is. */
export function labelProblem(ids: readonly number[], labels: readonly number[], { rows, columns }: Bounds) {
  const outside = outsideTable(ids, rows);
  if (outside !== null) return outside;
  const wrong = labels.find((id) => id !== ignoredLabel && (!Number.isInteger(id) || id < 0 || id >= columns));
  return wrong === undefined
    ? null
    : `has the label ${wrong}, and the model predicts ${columns}, 0 to ${columns - 1}: ` +
      `give a label among these, or ${ignoredLabel} for a token that is not to be learned.`;
}
