/** The methods: each is a file here and a line in this list. */
import { method as dora } from "./dora.ts";
import { method as pissa } from "./pissa.ts";
import { method as bottleneck } from "./bottleneck.ts";
import { method as biases } from "./biases.ts";
import { method as ia3 } from "./ia3.ts";
import { method as loha } from "./loha.ts";
import { method as lora } from "./lora.ts";
import { method as lokr } from "./lokr.ts";
import type { Adapted, Edit, Method } from "./method.ts";
import { method as miss } from "./miss.ts";
import { method as modules } from "./modules.ts";
import { method as prefix } from "./prefix.ts";
import { method as prompt } from "./prompt.ts";
import { method as ptuning } from "./ptuning.ts";
import { method as oft } from "./oft.ts";
import { method as shira } from "./shira.ts";
import { method as tokens } from "./tokens.ts";
import { method as vera } from "./vera.ts";

/** What adapts the modules that `targets` names: one of these. */
export const methods = {
  lora,
  dora,
  pissa,
  ia3,
  loha,
  vera,
  miss,
  prefix,
  prompt,
  ptuning,
  oft,
  lokr,
  shira,
  bottleneck,
} as const;

/** What is trained of the model itself beside any of them, in the order in which they are asked. */
export const besides: readonly Method<Edit>[] = [modules, biases, tokens];

/** What may be trained of the model itself beside a method. */
export function besidesOf({ whole }: Method): readonly Method<Edit>[] {
  return whole ? [modules] : besides;
}

const all: readonly Method<Adapted>[] = Object.values(methods);

/** The names of those that are chosen as such, and have PEFT's files: not by a switch, and not started from the weights. */
export const methodNames: readonly string[] = all.filter((m) => m.peftType && !m.switch && !m.start).map(({ name }) =>
  name
);

/** The methods that share a method's files. */
export function familyOf({ peftType }: Method): readonly Method<Adapted>[] {
  return all.filter((m) => m.peftType === peftType);
}

/** The method of a family that the options switch on, or the first. */
export function chosenBy(family: readonly Method<Adapted>[], options: object): Method<Adapted> {
  const switched = (m: Method) =>
    m.switch !== undefined && (options as Record<string, unknown> | undefined)?.[m.switch] === true;
  return family.find(switched) ?? family[0];
}
