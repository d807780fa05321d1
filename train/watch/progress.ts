/** A training run as it goes, in one line of a terminal. */
import { formatBytes, formatCount, formatSeconds } from "../../core/host/format.ts";
import { drawOnStderr, openTerminalSize } from "../../core/host/output.ts";
import { type Speed, speedMeter } from "./speed.ts";
import { checkOptions, type OptionNames } from "../../core/options.ts";

/** How far a run is. */
export interface ProgressState {
  /** Steps done. */
  readonly step: number;
  /** The last loss that is known. */
  readonly loss: number;
  /** The gradients' global norm before clipping. */
  readonly gradNorm?: number;
  /** Tokens seen since the run began. */
  readonly tokens: number;
  /** Memory in use. */
  readonly bytes?: number;
}

/** Where and how {@link progressBar} writes; every entry defaults to what standard error is. */
export interface ProgressOptions {
  /** Where it goes. Default standard error. */
  readonly write?: (text: string) => void;
  /** Whether lines can be rewritten. Otherwise a plain line is written every `interval`. */
  readonly terminal?: boolean;
  /** Default where a terminal has it. */
  readonly color?: boolean;
  /** The width. Default the terminal's, or 80. */
  readonly columns?: number;
  /** Milliseconds between two writes: 100 on a terminal, 10,000 elsewhere. */
  readonly interval?: number;
  /** Milliseconds on a clock. */
  readonly now?: () => number;
}

const progressNames: OptionNames<ProgressOptions> = {
  ...{ write: true, terminal: true, color: true, columns: true, interval: true, now: true },
};

/** A run as it is shown. */
export interface ProgressBar {
  /** After each step; `speed` where somebody measures it already. */
  update(state: ProgressState, speed?: Speed): void;
  /** A line that stays, above the bar. */
  say(line: string): void;
  /** Once, at the end. */
  end(): void;
}

/** Shows a run of `total` steps. */
export function progressBar(total: number, options: ProgressOptions = {}): ProgressBar {
  checkOptions("progressBar", options, progressNames);
  const found = openTerminalSize();
  const { terminal = found.terminal, write = drawOnStderr, now = () => performance.now() } = options;
  const { color = terminal && !Deno.noColor, columns = found.columns } = options;
  const { interval = terminal ? 100 : 10_000 } = options;
  const measured = speedMeter(total, now);
  let written = -Infinity;
  let open = false;
  return {
    update(state, speed = measured.note(state.step, state.tokens)) {
      const time = now();
      if (time - written < interval && state.step < total) return;
      written = time;
      const line = formatProgress(state, total, speed, columns - 1, terminal);
      const painted = color ? line.replace(/[█▏▎▍▌▋▊▉]+/, "\x1b[32m$&\x1b[39m") : line;
      write(terminal ? `\r${painted}\x1b[K` : `${painted}\n`);
      open = terminal;
    },
    say(line) {
      write(terminal ? `\r${line}\x1b[K\n` : `${line}\n`);
      open = false;
      written = -Infinity;
    },
    end() {
      if (open) write("\n");
      open = false;
    },
  };
}

/**
 * One line of at most `width` columns. Where there is little room the memory goes first, then the gradients' norm, then the
 * bar; where there is more the bar takes it.
 */
export function formatProgress(
  { step, loss, gradNorm, bytes }: ProgressState,
  total: number,
  { tokensPerSecond, secondsLeft }: Speed,
  width: number,
  bar = true,
): string {
  const head = `step ${String(step).padStart(String(total).length)}/${total}`;
  const speed = tokensPerSecond === null ? "-" : formatCount(Math.round(tokensPerSecond));
  const left = secondsLeft === null ? "-:--" : formatSeconds(secondsLeft);
  const norm = gradNorm === undefined ? [] : [`grad ${formatNorm(gradNorm)}`];
  const memory = bytes === undefined ? [] : [formatBytes(bytes)];
  const first = `loss ${loss.toFixed(4).padStart(7)}`;
  const last = [`${speed.padStart(7)} tokens/s`, `${left.padStart(5)} left`];
  const lines = [[...norm, ...last, ...memory], [...norm, ...last], last].map((rest) => [first, ...rest].join("  "));
  const drawn = bar ? minBar + 2 : 0;
  const figures = lines.find((line) => head.length + 2 + drawn + line.length <= width) ?? lines.at(-1)!;
  const room = width - head.length - figures.length - 4;
  if (!bar || room < minBar) return `${head}  ${figures}`.slice(0, width);
  return `${head}  ${drawBar(step / total, room)}  ${figures}`;
}

/** The shortest bar that is worth its room. */
const minBar = 5;

/** Five columns: `0.012`, `12.35`, `1.2e4`. */
function formatNorm(norm: number): string {
  const text = norm !== 0 && (norm < 1e-3 || norm >= 1e4) ? norm.toExponential(0) : norm.toPrecision(4).slice(0, 5);
  return text.padStart(5);
}

function drawBar(part: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, part)) * width * 8);
  const full = "█".repeat(eighths >> 3);
  const partial = " ▏▎▍▌▋▊▉"[eighths % 8].trim();
  return (full + partial).padEnd(width, "·");
}
