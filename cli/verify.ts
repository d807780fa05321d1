/** `lowrank verify`: that merging an adapter changes nothing but rounding, layer by layer. */
import { LowrankError } from "../core/errors.ts";
import { checkMerge, mergeSafely } from "../formats/merge.ts";
import { adaptedOptions, openAdapted } from "./adapted_model.ts";
import { columns } from "./columns.ts";
import { type Command, formatUsage, readFlags, UsageError } from "./command.ts";

export const command: Command = {
  name: "verify",
  summary: "that merging an adapter changes nothing but rounding, layer by layer",
  usage: formatUsage({
    call: "verify ADAPTER [OPTIONS]",
    table: adaptedOptions,
    example: "lowrank verify out/adapter",
    more:
      "Every adapted layer is fed random inputs, adapted and merged. The difference stands beside the bound that the\n" +
      "rounding of these products allows; a share above 1 is an error.",
  }),
  run: async (args, terminal) => {
    const { options, rest: [adapter] } = readFlags(args, adaptedOptions, 1);
    if (adapter === undefined) throw new UsageError("no adapter is given: name its folder or file");
    using opened = await openAdapted(adapter, options, terminal);
    const { tuned } = opened;
    const merged = await mergeSafely(tuned, tuned.trainable);
    const checks = await checkMerge(tuned, tuned.trainable, merged);
    const matches = new Map(tuned.matched.map((m) => [m.path, m]));
    const rows = checks.map(({ path, difference, bound, ratio }) => {
      const { r, scaling } = matches.get(path)!;
      return [path, `${r}`, short(scaling), difference.toExponential(1), bound.toExponential(1), ratio.toFixed(3)];
    });
    const heading = ["layer", "r", "scaling", "difference", "bound", "share"];
    const worst = checks.reduce((a, b) => b.ratio <= a.ratio ? a : b);
    terminal.print([
      ...columns(rows, heading),
      "",
      `${checks.length} layers; the greatest share of its bound is ${worst.ratio.toFixed(3)}, in ${worst.path}`,
    ].join("\n"));
    terminal.result({ adapter, base: opened.basePath, layers: checks, holds: worst.ratio <= 1 });
    if (!(worst.ratio <= 1)) {
      throw new LowrankError(
        `merged and adapted ${worst.path} differ by ${worst.ratio} times what rounding allows: use the adapter unmerged`,
      );
    }
  },
};

const short = (n: number) => String(Number(n.toPrecision(5)));
