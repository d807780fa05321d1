/** Types are tested by compiling: a line under @ts-expect-error must not. */
import { assertThrows } from "@std/assert";
import { OptionError } from "./errors.ts";
import { checkOptions } from "./options.ts";

interface Options {
  readonly store?: string;
  readonly batch: number;
}

Deno.test("a function that forgets one of its own options does not compile", () => {
  const options: Options = { batch: 1 };
  checkOptions("f", options, { store: true, batch: true });
  // @ts-expect-error store is an option, and would be refused
  checkOptions("f", options, { batch: true });
  // @ts-expect-error the same where all options may be left out
  checkOptions("f", {} as Partial<Options>, { batch: true });
  // @ts-expect-error there is no such option
  checkOptions("f", options, { store: true, batch: true, stroe: true });
});

Deno.test("an option that there is not is named, with the nearest one; one that is undefined says nothing", () => {
  const names = { store: true, batch: true };
  checkOptions<Options>("f", { batch: 1, ...{ stroe: undefined } }, names);
  assertThrows(
    () => checkOptions<Options>("f", { batch: 1, ...{ stroe: "x" } }, names),
    OptionError,
    "f has no option stroe: did you mean store?",
  );
});
