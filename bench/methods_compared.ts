/** What is compared by `bench/methods.ts`: each by the name of its method, with what its papers and PEFT take for options. */
import type { Method } from "../lora/mod.ts";
import { methods } from "../lora/mod.ts";

/** One line of the comparison. */
export interface Compared {
  readonly name: string;
  /** In the list of methods; null trains all parameters. */
  readonly method: string | null;
  readonly options?: Readonly<Record<string, unknown>>;
  /** The learning rate, of those that are usual for it. */
  readonly lr: number;
}

const ranks = [1, 4, 8, 16, 64];

/** All lines. Methods that the list does not have are named as left out. */
export const compared: readonly Compared[] = [
  { name: "all parameters", method: null, lr: 2e-4 },
  ...ranks.map((r) => ({ name: `LoRA r ${r}`, method: "lora", options: { r, alpha: 2 * r }, lr: 2e-3 })),
  { name: "DoRA r 8", method: "dora", options: { r: 8, alpha: 16, dora: true }, lr: 2e-3 },
  { name: "MiSS r 8", method: "miss", options: { r: 8 }, lr: 2e-3 },
  { name: "OFT, blocks of 32", method: "oft", options: { oftBlockSize: 32 }, lr: 2e-3 },
  { name: "IA3", method: "ia3", options: {}, lr: 1e-2 },
  { name: "bottleneck layers", method: "bottleneck", options: {}, lr: 2e-3 },
  { name: "prefix of 16", method: "prefix", options: { numVirtualTokens: 16 }, lr: 1e-2 },
];

/** The method of a line; undefined where there is none of that name. */
export function methodOf({ method }: Compared): Method<any, any> | undefined {
  return Object.values(methods as unknown as Record<string, Method<any, any>>).find(({ name }) => name === method);
}
