/** Curves of a run as SVG text: drawn when the report is written, so that the page needs no script and no network. */
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import { formatBytes, formatCount } from "../core/host/format.ts";

/** A value over the steps of a run. */
export interface Point {
  readonly step: number;
  readonly value: number;
}

/** What a figure shows. Colours come from the page: `--train`, `--evaluation` and the text's own. */
export interface Figure {
  /** What the vertical axis says, with its unit. */
  readonly label: string;
  /** In pixels; text keeps its size, so a narrow screen gets a figure of its own. */
  readonly width: number;
  readonly height: number;
  /** Values at every step. */
  readonly points: readonly Point[];
  /** Values at some steps, drawn as dots on a line. */
  readonly marked?: readonly Point[];
  /** The step of a point among `marked` to be pointed out. */
  readonly best?: number;
  /** Draw a smoothed curve over the plain one. */
  readonly smooth?: boolean;
  /** How values are written at the axis. */
  readonly format?: "number" | "bytes" | "count";
  /** Whether the axis begins at 0. */
  readonly zero?: boolean;
}

/** The most points that a curve is drawn with: more than a screen tells apart. */
const maxPoints = 360;

/** Values of neighbouring steps together. */
interface Bucket {
  readonly step: number;
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** At most {@link maxPoints} buckets of equally many steps. Values that are not finite are left out. */
function bucketed(points: readonly Point[]): Bucket[] {
  const finite = points.filter(({ value }) => value !== null && Number.isFinite(value));
  const size = Math.ceil(finite.length / maxPoints);
  return Array.from({ length: Math.ceil(finite.length / size) || 0 }, (_, i) => {
    const part = finite.slice(i * size, (i + 1) * size);
    const values = part.map(({ value }) => value);
    const mean = values.reduce((a, b) => a + b) / values.length;
    return { step: part[part.length >> 1].step, value: mean, low: Math.min(...values), high: Math.max(...values) };
  });
}

/** Each bucket as the mean of those around it, a fortieth of the curve on both sides; fewer near the ends, equally many. */
function smoothed(buckets: readonly Bucket[]): Point[] {
  const widest = Math.max(1, Math.round(buckets.length / 40));
  return buckets.map(({ step }, i) => {
    const reach = Math.min(widest, i, buckets.length - 1 - i);
    const around = buckets.slice(i - reach, i + reach + 1);
    return { step, value: around.reduce((sum, { value }) => sum + value, 0) / around.length };
  });
}

/** Steps of 1, 2 and 5 times powers of ten between two values; the powers alone where those would be too many. */
function logarithmicTicks(low: number, high: number, most: number): number[] {
  const powers = Array.from(
    { length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 },
    (_, i) => Math.floor(Math.log10(low)) + i,
  );
  const within = (steps: readonly number[]) =>
    powers.flatMap((p) => steps.map((s) => Number(`${s}e${p}`))).filter((x) => x >= low && x <= high);
  const fine = within([1, 2, 5]);
  return fine.length <= most ? fine : within([1]);
}

/** An axis that labels every tick, where the library's own leaves some of a logarithmic one out. */
function logarithmicAxis(ticks: readonly number[], label: string, format: (value: number) => string) {
  return [Plot.gridY(ticks), Plot.axisY(ticks, { label, text: ticks.map(format), tickSize: 6 })];
}

/** Draws a figure as one `<svg>` element. */
export function drawFigure(figure: Figure): string {
  const { label, width, height, marked = [], best, smooth = false, format = "number", zero = false } = figure;
  // Its types need a browser's, which this project is compiled without.
  const { document } = parseHTML("<html></html>") as unknown as { document: any };
  const buckets = bucketed(figure.points);
  const evaluated = marked.filter(({ value }) => Number.isFinite(value));
  const values = [...buckets.flatMap(({ low, high }) => [low, high]), ...evaluated.map(({ value }) => value)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  // A curve that falls over more than a power of ten is read off a logarithmic axis.
  const logarithmic = !zero && low > 0 && high / low > 12;
  const thin = smooth ? { strokeOpacity: 0.35, strokeWidth: 1 } : { strokeWidth: 1.5 };
  const xy = { x: "step", y: "value" };
  const chosen = evaluated.filter(({ step }) => step === best);
  const svg = Plot.plot({
    document,
    ...{ width, height, marginLeft: 52, marginRight: 14, marginBottom: 34, marginTop: 24 },
    style: { fontSize: "11px", fontFamily: "inherit", background: "none", overflow: "visible" },
    x: {
      label: "step",
      tickFormat: (x: number) => Number.isInteger(x) ? formatCount(x) : "",
      ticks: width / 90,
    },
    y: {
      label,
      grid: true,
      tickFormat: tickFormats[format],
      ...(logarithmic ? { type: "log", axis: null, grid: false } : { nice: true, zero, ticks: height / 45 }),
    },
    marks: [
      ...(logarithmic ? logarithmicAxis(logarithmicTicks(low, high, height / 28), label, tickFormats[format]) : []),
      ...(buckets.length < figure.points.length
        ? [Plot.areaY(buckets, { x: "step", y1: "low", y2: "high", fill: "var(--train)", fillOpacity: 0.15 })]
        : []),
      Plot.lineY(buckets, { ...xy, stroke: "var(--train)", ...thin }),
      ...(smooth ? [Plot.lineY(smoothed(buckets), { ...xy, stroke: "var(--train)", strokeWidth: 2 })] : []),
      Plot.lineY(evaluated, { ...xy, stroke: "var(--evaluation)", strokeWidth: 1.5 }),
      Plot.dot(evaluated, { ...xy, fill: "var(--evaluation)", r: 3 }),
      Plot.dot(chosen, { ...xy, stroke: "var(--evaluation)", r: 6.5, strokeWidth: 1.5 }),
    ],
  });
  return svg.outerHTML;
}

const tickFormats: Record<NonNullable<Figure["format"]>, (value: number) => string> = {
  number: (value) =>
    value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)
      ? value.toExponential()
      : String(+value.toPrecision(6)),
  bytes: (value) => value === 0 ? "0" : formatBytes(value),
  count: formatCount,
};
