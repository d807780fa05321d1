/** Losses read back in groups: on a GPU one wait takes 10 ms in Deno whatever is read, so short steps share it. */
import type { ScalarTensor } from "../../core/tensor.ts";
import { read } from "../../kernels/runtime/read.ts";
import type { StepLine } from "./watch.ts";

/** Most steps that share a wait, so that a run that went wrong is noticed soon. */
export const maxPerRead = 8;

/** A wait shorter than this is worth sharing, in milliseconds. */
const worthSharing = 40;

/** What is known of a step before its loss is, and how its measures follow from what was measured. */
type Begun = Omit<StepLine, "loss" | "gradNorm" | "measures"> & {
  readonly measure?: (loss: number, measured: Readonly<Record<string, number>>) => StepLine["measures"];
};

/** What a step says, on its device. */
interface Report {
  readonly loss: ScalarTensor;
  readonly gradNorm: ScalarTensor;
  readonly measured?: Readonly<Record<string, ScalarTensor>>;
}

/** Steps whose losses are still on the device. */
export interface GroupedReads {
  /** Groups that are being read. */
  readonly waiting: number;
  /** One more step. A group is read once it is full: as many steps as take some 40 ms, by the time of those before. */
  add(line: Begun, report: Report): void;
  /** Reads the group that is open, full or not. */
  close(): void;
  /** The lines of the oldest group, once they are here. */
  oldest(): Promise<StepLine[]>;
  /** Waits for all that is under way, whatever it says. */
  rest(): Promise<void>;
}

/** Groups of at most `most` steps. */
export function groupReads(most: number, now: () => number = () => performance.now()): GroupedReads {
  const underWay: Promise<StepLine[]>[] = [];
  let open: { line: Begun; report: Report }[] = [];
  let size = 1;
  let last = now();
  const close = () => {
    if (open.length === 0) return;
    const group = open;
    open = [];
    const reports = read(group.map(({ report }) => report), { release: true });
    underWay.push(reports.then((values) => {
      const milliseconds = (now() - last) / group.length;
      last = now();
      size = Math.max(1, Math.min(most, Math.floor(worthSharing / milliseconds)));
      return group.map(({ line: { measure, ...line } }, i) => {
        const { loss, gradNorm, measured = {} } = values[i];
        const measures = measure && Object.keys(measured).length > 0 ? measure(loss, measured) : undefined;
        return { ...line, loss, gradNorm, ...(measures && { measures }) };
      });
    }));
  };
  return {
    get waiting() {
      return underWay.length;
    },
    add(line, report) {
      open.push({ line, report });
      if (open.length >= size) close();
    },
    close,
    oldest: () => underWay.shift()!,
    rest: async () => void await Promise.all(underWay),
  };
}
