/** Modules that are trained in full beside an adapter, as PEFT's modules_to_save. */
import { OptionError } from "../../core/errors.ts";
import type { TuneOptions } from "../options.ts";
import { isBelow, noSuch } from "../targets.ts";
import type { Adapted, Edit, Method } from "./method.ts";
import { leafSites, namedLeaves, wholeLeaf } from "./whole_leaf.ts";

export const method: Method<Edit, TuneOptions<any>> = {
  ...wholeLeaf,
  name: "modules",
  options: { modulesToSave: { peft: "modules_to_save", file: { is: "a list of names or null", default: null } } },
  keys: [{ leaf: "weight", ending: ".weight" }, { leaf: "bias", ending: ".bias" }],
  sites: (outline, options) => {
    const names = namedLeaves(outline, options);
    const chosen = (options.modulesToSave ?? []).flatMap((entry: string) => {
      const found = names.filter((name) => isBelow(name, entry));
      if (found.length > 0) return found;
      throw noSuch(`modulesToSave "${entry}"`, entry, outline.modules.filter((m) => m.part === null));
    });
    const sites = leafSites(method, "modulesToSave", outline, chosen);
    const whole = new Set(sites.filter(({ saved }) => saved.part === "weight").map(({ path }) => path));
    const clash = (outline.taken as readonly Adapted[]).find((m) => whole.has(m.part?.of ?? m.path));
    if (clash === undefined) return sites;
    throw new OptionError(
      `"${clash.path}" is in targets and, by modulesToSave, trained in full: name it in one of them`,
    );
  },
  config: (sites) => ({ modules_to_save: [...new Set(sites.map(({ hub }) => hub))] }),
};
