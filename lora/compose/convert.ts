/** The same adapter in another form: PiSSA as a plain one, parts of projections as whole modules. */
import { OptionError } from "../../core/errors.ts";
import { mul, neg } from "../../core/ops/elementwise.ts";
import { concat, pad } from "../../core/ops/structure.ts";
import { outputsOf } from "../follow/effect.ts";
import { type Tuned, tunedOf } from "../lora.ts";
import { isPair, ranked } from "../methods/lora.ts";
import type { Adapted } from "../methods/method.ts";
import type { AdapterEntry, Trainable } from "../options.ts";
import { checkTuned } from "../check_trainable.ts";

/**
 * A PiSSA adapter as a plain one of twice the rank, for the base as it was before: s·(B·A - B₀·A₀). What is saved for others
 * must be this, since they have no residual weights.
 *
 * @param tuned what {@link pissa} gave
 * @param trainable the trained values
 */
export function pissaToLora<P, I, O>(tuned: Tuned<P, I, O>, trainable: Trainable): Tuned<P, I, O> {
  checkTuned("pissaToLora", tuned);
  tuned.check(trainable);
  const { adapted, edits, dropout } = tuned.plan;
  const other = adapted.find((m) => m.method.readsWeight);
  if (other) {
    throw new OptionError(
      `"${other.path}" is adapted by ${other.method.name}, whose change is no plain adapter of another weight: merge it`,
    );
  }
  const doubled = adapted.map((m) => {
    const { r, scaling } = m.match;
    return m.kind === "embedding" ? m : ranked(m, 2 * r, scaling);
  });
  const entries = Object.fromEntries(
    Object.entries(trainable).map(([path, entry]) => {
      const m = adapted.find((m) => m.path === path);
      if (m === undefined || m.kind === "embedding") return [path, entry];
      const first = tuned.trainable[path];
      return [path, { ...entry, A: concat([entry.A!, first.A!], 0), B: concat([entry.B!, neg(first.B!)], 1) }];
    }),
  );
  return tunedOf(tuned.model, { adapted: doubled, edits, dropout }, entries);
}

/**
 * The adapter with one entry for each whole module: parts of a fused projection are put below each other in A and, between
 * zeros, side by side in B. It is the same function, and what files hold.
 */
export function wholeModules<P, I, O>(tuned: Tuned<P, I, O>, trainable: Trainable): Tuned<P, I, O> {
  checkTuned("wholeModules", tuned);
  tuned.check(trainable);
  const { adapted, edits, dropout } = tuned.plan;
  const groups = Map.groupBy(adapted, (m) => m.match.part?.of ?? m.path);
  const entries: Record<string, AdapterEntry> = Object.fromEntries(edits.map(({ path }) => [path, trainable[path]]));
  const whole = [...groups].map(([path, parts]): Adapted => {
    const [m] = parts;
    if (m.match.part === undefined) {
      entries[path] = trainable[path];
      return m;
    }
    if (!isPair(m)) {
      throw new OptionError(
        `"${path}" has other values than A and B for parts of its outputs, which a file of PEFT's can't express`,
      );
    }
    const alike = parts.every((p) => p.match.scaling === m.match.scaling);
    const r = parts.reduce((sum, p) => sum + p.match.r, 0);
    const pads = parts.map((p) => {
      const { start, end, of } = outputsOf(p);
      const B = pad(mul(trainable[p.path].B!, alike ? 1 : p.match.scaling / m.match.scaling), [start, 0], [
        of - end,
        0,
      ]);
      return { A: trainable[p.path].A!, B };
    });
    entries[path] = {
      ...entries[path],
      A: concat(pads.map((p) => p.A), 0),
      B: concat(pads.map((p) => p.B), 1),
    };
    const { part: _, ...match } = m.match;
    const hub = m.hub.slice(0, m.hub.lastIndexOf("["));
    return ranked({ ...m, path, hub, part: null, match: { ...match, path } }, r, match.scaling);
  });
  return tunedOf(tuned.model, { adapted: whole, edits, dropout }, entries, tuned.frozen);
}

/** The same function by what files keep of it: keys and values, say, and not the network that they are made by. */
export function asKept<P, I, O>(tuned: Tuned<P, I, O>, trainable: Trainable): Tuned<P, I, O> {
  checkTuned("asKept", tuned);
  const { adapted, edits, dropout } = tuned.plan;
  if (!adapted.some(({ method }) => method.kept)) return { ...tuned, trainable };
  tuned.check(trainable);
  const kept = adapted.map((site) => ({
    site,
    entry: trainable[site.path],
    ...site.method.kept?.(site, trainable[site.path]),
  }));
  const entries = Object.fromEntries(kept.map(({ site, entry }) => [site.path, entry]));
  const plan = { adapted: kept.map(({ site }) => site as Adapted), edits, dropout };
  return tunedOf(tuned.model, plan, { ...trainable, ...entries }, tuned.frozen);
}
