/** The schedule of a row kernel: how many lanes share a row, and how often they read it. */
import type { Phase, RowKernel } from "../../ir/kernel.ts";
import { AxesOf, type Expr, rootsOf, type Store, walk } from "../../ir/expr.ts";
import type { Reduction } from "./join.ts";
import { type OnlineReduction, onlineReduction } from "./online.ts";
import type { Width } from "../scalar.ts";
import { maxRounds, type TileConfig } from "../tile.ts";

/** Columns from which on a row takes four times the lanes, and up to which one lane has it alone. */
const [longRow, shortRow] = [4096, 16];
/** The fewest lanes of a row that has more than one, the most, and the most elements that a lane keeps in registers. */
const [fewLanes, maxLanes, maxKept] = [8, 256, 64];
/** The most terms of one running sum: its rounding errors grow with them, those of the lanes' sums only with their logarithm. */
const maxSummed = 4096;

/** One reading of a row: reductions that run side by side, or stores at every column. */
export type RowPass = readonly OnlineReduction[] | { readonly stores: readonly Store[] };

/** The schedule of a row kernel. */
export interface RowSchedule {
  /** Invocations that share a row; one does its rows alone, with no barrier. */
  readonly lanes: number;
  /** Neighbouring columns that a lane takes at a time. */
  readonly unit: Width;
  /** Whether a row is read once and kept in registers. */
  readonly kept: boolean;
  readonly passes: readonly RowPass[];
  /** Lanes of a subgroup, which join their results by themselves; 0 for none. */
  readonly subgroups: number;
}

/**
 * Chooses the schedule from the row's length, what is read of it more than once, and whether neighbouring rows, and not
 * neighbouring columns, lie side by side in memory: then each lane has a row of its own.
 */
export function scheduleRow(
  { rows, cols, phases }: RowKernel,
  tile: TileConfig,
  unit: Width,
  across: boolean,
): RowSchedule {
  const axes = new AxesOf(), varies = (expr: Expr) => axes.varies(expr, rows.length);
  const passes = passesOf(phases, varies);
  const rounds = cols / unit;
  const parts = Math.max(rounds * Math.max(1, passes.length) / maxRounds, across ? 1 : rounds / maxSummed);
  const least = parts <= 1 ? 1 : Math.max(fewLanes, 2 ** Math.ceil(Math.log2(parts)));
  let lanes = tile.rowLanes === 1 || across || cols <= shortRow
    ? least
    : Math.max(least, cols >= longRow ? tile.rowLanes * 4 : tile.rowLanes);
  lanes = Math.min(maxLanes, lanes);
  const again = rereadLoads(phases, varies);
  const perLane = () => again * unit * Math.ceil(cols / unit / lanes);
  if (lanes > 1 && perLane() <= maxKept * (maxLanes / lanes)) { while (perLane() > maxKept) lanes *= 2; }
  const kept = again > 0 && perLane() <= maxKept && !phases.some((p) => p.kind === "reduce" && p.op === "argmax");
  return { lanes, unit, kept, passes, subgroups: tile.subgroups };
}

/** The phases gathered into as few readings of the row as they allow, in order. */
function passesOf(phases: readonly Phase[], varies: (expr: Expr) => boolean): RowPass[] {
  const passes: RowPass[] = [];
  let open: OnlineReduction[] = [];
  let alongside = new Map<number, Reduction>();
  phases.forEach((phase, p) => {
    if (phase.kind === "once") return;
    if (phase.kind === "each") return void passes.push({ stores: phase.stores });
    let online = onlineReduction(p, phase, alongside, varies);
    if (online === null || open.length === 0) {
      [open, alongside] = [[], new Map()];
      passes.push(open);
      online = onlineReduction(p, phase, alongside, varies)!;
    }
    open.push(online);
    alongside.set(p, phase);
  });
  return passes;
}

/** How many loads along the row more than one phase does. */
function rereadLoads(phases: readonly Phase[], varies: (expr: Expr) => boolean): number {
  const readers = new Map<Expr, number>();
  for (const phase of phases) {
    const roots = phase.kind === "reduce" ? [phase.value] : phase.kind === "each" ? rootsOf(phase.stores) : [];
    for (const e of walk(roots)) {
      if (e.kind === "load" && varies(e)) readers.set(e, (readers.get(e) ?? 0) + 1);
    }
  }
  return [...readers.values()].filter((n) => n > 1).length;
}
