/** The first page of an explanation: each kernel in a line, however long the rest is. */
import { bytesOf, describeKernel, flopsOf } from "./describe.ts";
import type { Kernel, Program } from "../ir/kernel.ts";
import type { KernelText } from "../device/device.ts";

/** A kernel, how it is tiled, and the steps that launch it. */
export interface Launches {
  readonly kernel: Kernel;
  readonly at: readonly number[];
  readonly text: KernelText;
}

/**
 * A table of kernels, in the order of their first steps: how often each is launched, and what all its launches together compute
 * and touch; with times also the milliseconds, their share, and GFLOP/s. Tiles are letters, which the lines below tell.
 */
export function printSummary(all: readonly Launches[], program: Program, times?: readonly number[]): string {
  const tilings = [...new Set(all.map(({ text }) => text.tiling))];
  const works = all.map(({ kernel, at }) => ({
    flops: flopsOf(kernel) * at.length,
    bytes: bytesOf(kernel) * at.length,
    ms: times ? sum(at.map((i) => times[i])) : 0,
  }));
  const total = {
    flops: sum(works.map((work) => work.flops)),
    bytes: sum(works.map((work) => work.bytes)),
    ms: sum(works.map((work) => work.ms)),
  };
  const figures = ({ flops, bytes, ms }: typeof total) => [
    millions(flops),
    millions(bytes),
    ...(times ? [ms.toFixed(3), share(ms, total.ms), ms > 0 ? (flops / ms / 1e6).toFixed(1) : ""] : []),
  ];
  const lines = [
    ["step", "x", "kernel", "tile", "MFLOP", "MB", ...(times ? ["ms", "%", "GFLOP/s"] : [])],
    ...all.map((one, i) => [
      `${one.at[0]}`,
      one.at.length > 1 ? `${one.at.length}` : "",
      describeKernel(one.kernel),
      letter(tilings.indexOf(one.text.tiling)),
      ...figures(works[i]),
    ]),
    ["", "", "all", "", ...figures(total)],
  ];
  const { steps, arenaBytes } = program;
  return [
    `${steps.length} dispatches of ${all.length} kernels, ${millions(arenaBytes)} MB for intermediates`,
    "",
    ...aligned(lines, [2, 3]),
    "",
    ...tilings.map((tiling, i) => `${letter(i)}  ${tiling}`),
  ].join("\n");
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const share = (part: number, whole: number) => whole > 0 ? (100 * part / whole).toFixed(1) : "";

/** A, B, …, Z, A1, B1, … */
const letter = (i: number) => String.fromCharCode(65 + i % 26) + (i < 26 ? "" : Math.floor(i / 26));

/** Millions with at least two digits that say something: `0.79`, `12`, `1,247`. */
function millions(n: number): string {
  const size = n / 1e6;
  const digits = size >= 10 ? 0 : size >= 1 ? 1 : 2;
  return size.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Cells in columns two apart; those numbered in `left` begin alike, the others end alike. */
function aligned(rows: readonly (readonly string[])[], left: readonly number[]): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) =>
    row.map((cell, i) => left.includes(i) ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ").trimEnd()
  );
}
