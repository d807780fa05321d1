/** A training run as it goes, in one line of a terminal. */

/** How far a run is. */
export interface ProgressState {
  /** Steps done. */
  readonly step: number;
  /** The last loss that is known. */
  readonly loss: number;
  /** Tokens seen since the run began. */
  readonly tokens: number;
}

/** Where and how {@link progressBar} writes; every entry defaults to what standard error is. */
export interface ProgressOptions {
  readonly write?: (text: string) => void;
  /** Whether lines can be rewritten. Otherwise a plain line is written every `interval`. */
  readonly terminal?: boolean;
  readonly color?: boolean;
  readonly columns?: number;
  /** Milliseconds between two writes: 100 on a terminal, 10,000 elsewhere. */
  readonly interval?: number;
  /** Milliseconds on a clock. */
  readonly now?: () => number;
}

/** Shows a run of `total` steps: call `update` after each step and `end` once. */
export function progressBar(
  total: number,
  options: ProgressOptions = {},
): { update(state: ProgressState): void; end(): void } {
  const { terminal = Deno.stderr.isTerminal(), write = writeToStderr, now = () => performance.now() } = options;
  const { color = terminal && !Deno.noColor, columns = terminal ? Deno.consoleSize().columns : 80 } = options;
  const { interval = terminal ? 100 : 10_000 } = options;
  let first: { state: ProgressState; time: number } | undefined;
  let written = -Infinity;
  let open = false;
  return {
    update(state) {
      const time = now();
      // The first step also compiles, so speed is counted from its end.
      first ??= { state, time };
      if (time - written < interval && state.step < total) return;
      written = time;
      const seconds = (time - first.time) / 1000;
      const line = formatProgress(state, total, {
        tokensPerSecond: seconds > 0 ? (state.tokens - first.state.tokens) / seconds : null,
        secondsLeft: seconds > 0 ? seconds / (state.step - first.state.step) * (total - state.step) : null,
      }, columns - 1);
      const painted = color ? line.replace(/[█▏▎▍▌▋▊▉]+/, "\x1b[32m$&\x1b[39m") : line;
      write(terminal ? `\r${painted}\x1b[K` : `${painted}\n`);
      open = terminal;
    },
    end() {
      if (open) write("\n");
      open = false;
    },
  };
}

function writeToStderr(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(text));
}

/** One line of at most `width` columns: what is left beside the figures is the bar, and without room there is none. */
export function formatProgress(
  { step, loss }: ProgressState,
  total: number,
  { tokensPerSecond, secondsLeft }: { tokensPerSecond: number | null; secondsLeft: number | null },
  width: number,
): string {
  const digits = String(total).length;
  const head = `step ${String(step).padStart(digits)}/${total}`;
  const speed = tokensPerSecond === null ? "-" : Math.round(tokensPerSecond).toLocaleString("en");
  const left = secondsLeft === null ? "-:--" : formatSeconds(secondsLeft);
  const figures = `loss ${loss.toFixed(4).padStart(7)}  ${speed.padStart(7)} tokens/s  ${left.padStart(5)} left`;
  const room = width - head.length - figures.length - 4;
  if (room < 5) return `${head}  ${figures}`.slice(0, width);
  return `${head}  ${drawBar(step / total, room)}  ${figures}`;
}

function drawBar(part: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, part)) * width * 8);
  const full = "█".repeat(eighths >> 3);
  const partial = " ▏▎▍▌▋▊▉"[eighths % 8].trim();
  return (full + partial).padEnd(width, "·");
}

/** `0:07`, `12:30`, `1:02:03`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
