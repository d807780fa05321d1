/** Labels by their names, as outputs of a model. */
import { DataError } from "../../core/errors.ts";

/** The class of that name; of a number that is no class's name, the one of that place. */
export function classOf(label: string, classes: readonly string[]): number {
  const at = classes.indexOf(label);
  if (at >= 0) return at;
  const isNumber = (name: string) => /^\d+$/.test(name);
  if (isNumber(label) && Number(label) < classes.length && !classes.some(isNumber)) return Number(label);
  throw new DataError(
    `the label ${JSON.stringify(label)} is not one of the model's classes ${
      classes.join(", ")
    }: give one of these, or its ` +
      `number from 0 to ${classes.length - 1}.`,
  );
}
