/** Checkpoints on disk: folders that are there whole or not at all, the last few and the best of a run. */
import { createHash } from "node:crypto";
import { FileError, LowrankError, OptionError } from "../../core/errors.ts";
import type { HostTensor } from "../../core/tensor.ts";
import {
  explained,
  flushFolder,
  refuseLink,
  removeIfPossible,
  removeTree,
  replaceFile,
  writeFlushed,
} from "../../models/load/files/atomic_file.ts";
import { memoryBytes, pathKind, readJsonObject } from "../../models/load/files/byte_source.ts";
import { encodeSafetensors, openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import type { Snapshot } from "./snapshot.ts";
import { checkOptions, type OptionNames } from "../../core/options.ts";

/** What defines a run, as nested plain values. Two runs with the same identity compute the same. */
export type RunIdentity = Readonly<Record<string, unknown>>;

/** Where checkpoints are kept, and which. */
export interface CheckpointOptions {
  /** The folder that holds them. */
  readonly folder: string;
  /** What a run must have in common with the one that it goes on with. */
  readonly identity: RunIdentity;
  /** How many of the last ones stay. Default 3. */
  readonly keep?: number;
  /** Puts further files into a checkpoint's folder, such as the adapter for other programs. */
  readonly writeMore?: (folder: string, params: unknown) => Promise<void>;
  /** Writes a file and flushes it to the disk. */
  readonly write?: (path: string, contents: string | Iterable<Uint8Array>) => void;
}

const checkpointNames: OptionNames<CheckpointOptions> = {
  ...{ folder: true, identity: true, keep: true, writeMore: true, write: true },
};

/** A run's checkpoints. */
export interface CheckpointStore {
  /**
   * Writes one, then removes those that need not stay: all but the last few and `best`. A sentence for each that could not
   * be removed.
   *
   * @throws {FileError} when it can't be written; those that were there stay
   */
  save(snapshot: Snapshot, params: unknown, best: number | null): Promise<readonly string[]>;
  /** The steps of the checkpoints that are there, rising. */
  steps(): number[];
  /**
   * The checkpoint of one step, without the best one's tensors.
   *
   * @throws {FileError} when it is damaged
   * @throws {OptionError} when it is of another run, naming what differs
   */
  read(step: number): Snapshot;
  /** Removes all of them. */
  clear(): void;
  /**
   * The newest checkpoint that is whole, with the best one's tensors, and a sentence for each that is damaged; null where
   * there is none.
   *
   * @throws {OptionError} when it is of another run, naming what differs
   */
  newest(): { readonly snapshot: Snapshot; readonly notes: readonly string[] } | null;
}

const stateName = "state.safetensors", runName = "run.json";

/** 2: an epoch has every row once, so that a place in the data of format 1 means another one. */
const format = 2;

/**
 * The checkpoints in a folder. Each is a folder of its own, written under another name, flushed and then renamed: at no
 * moment is there a half one under a checkpoint's name. Both files are kept with their SHA-256.
 */
export function checkpointStore(options: CheckpointOptions): CheckpointStore {
  checkOptions("checkpointStore", options, checkpointNames);
  const { folder, identity, keep = 3, writeMore, write = writeFlushed } = options;
  if (!Number.isInteger(keep) || keep < 1) throw new OptionError(`keep is ${keep}: give a whole number of at least 1`);
  const nameOf = (step: number) => `step-${String(step).padStart(8, "0")}`;
  const at = (step: number) => `${folder}/${nameOf(step)}`;

  const steps = () => checkpointSteps(folder);

  /** Takes a folder out of sight before its files go one by one: cut short, no half checkpoint is left under the name. */
  const remove = (step: number) => {
    const gone = `${folder}/.${nameOf(step)}.gone`;
    removeTree(gone);
    explained(at(step), "removed", () => Deno.renameSync(at(step), gone));
    removeTree(gone);
  };

  const save = async (snapshot: Snapshot, params: unknown, best: number | null) => {
    const part = `${folder}/.${nameOf(snapshot.step)}.part`;
    removeTree(part);
    try {
      const state = [...encodeSafetensors(snapshot.tensors)];
      const { tensors: _, best: __, ...rest } = snapshot;
      const run = { format, ...rest, bestStep: best, stateHash: hashOf(state), identity };
      const text = JSON.stringify({ ...run, hash: hashOfJson(run) }, null, 2);
      write(`${part}/${stateName}`, state);
      write(`${part}/${runName}`, `${text}\n`);
      await writeMore?.(part, params);
      flushFolder(part);
      if (pathKind(at(snapshot.step)) !== null) remove(snapshot.step); // a damaged one that was passed over
      replaceFile(part, at(snapshot.step));
    } catch (error) {
      removeIfPossible(part); // else the next run that opens this folder does it
      throw error;
    }
    return prune(snapshot.step, best);
  };

  /** Removes what need not stay after `now`; what is in the way is reported, and tried again after the next. */
  const prune = (now: number, best: number | null): string[] => {
    const notes: string[] = [];
    const attempt = (work: () => void) => {
      try {
        work();
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        notes.push(error.message);
      }
    };
    attempt(() => {
      const last = steps().filter((step) => step <= now).slice(-keep);
      for (const step of steps()) if (!last.includes(step) && step !== best) attempt(() => remove(step));
    });
    return notes;
  };

  const newest = () => {
    const notes: string[] = [];
    for (const step of steps().reverse()) {
      try {
        const { best, ...snapshot } = readCheckpoint(at(step), identity);
        const found = best !== null && best !== step && steps().includes(best)
          ? readState(at(best)).tensors
          : undefined;
        return { snapshot: { ...snapshot, best: best === step ? snapshot.tensors : found }, notes };
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
        notes.push(`${error.message} The previous one is used.`);
      }
    }
    if (notes.length > 0) throw new FileError(`No checkpoint in ${folder} is complete. ${notes[0]}`);
    return null;
  };

  refuseLink(folder);
  if (pathKind(folder) === "folder") {
    for (const { name } of Deno.readDirSync(folder)) {
      if (/^\.step-\d+\.(part|gone)$/.test(name)) removeIfPossible(`${folder}/${name}`); // of a run that was killed
    }
  }
  const read = (step: number): Snapshot => ({ ...readCheckpoint(at(step), identity), best: undefined });
  return { save, steps, read, clear: () => steps().forEach(remove), newest };
}

/** The steps of the checkpoints that a folder holds, rising. */
export function checkpointSteps(folder: string): number[] {
  if (pathKind(folder) !== "folder") return [];
  return explained(folder, "read", () => [...Deno.readDirSync(folder)]).flatMap(({ name, isDirectory }) =>
    isDirectory && /^step-\d+$/.test(name) ? Number(name.slice(5)) : []
  ).sort((a, b) => a - b);
}

/** A checkpoint's folder as a snapshot. */
function readCheckpoint(path: string, identity: RunIdentity): Omit<Snapshot, "best"> & { best: number | null } {
  const { run, tensors } = readState(path);
  const { step, tokens, cursor, watch, bestStep } = run;
  const differences = differencesOf(run.identity, identity);
  if (differences.length > 0) {
    throw new OptionError(
      `The run in ${path} can't be resumed with other values: ${
        differences.join("; ")
      }. Use the same ones, or start a new ` +
        `run in another folder.`,
    );
  }
  return { step, tokens, cursor, watch, best: bestStep, tensors };
}

/** The two files of a checkpoint, checked against each other. */
function readState(path: string): { run: any; tensors: ReadonlyMap<string, HostTensor> } {
  const damaged = (reason: string) => new FileError(`The checkpoint ${path} is damaged: ${reason}.`);
  try {
    const { hash, ...rest } = readJsonObject(`${path}/${runName}`);
    if (hashOfJson(rest) !== hash) throw damaged(`${runName} is not what was written`);
    const run: any = rest;
    if (run.format < format) {
      throw new OptionError(
        `The checkpoint ${path} was written by an earlier version, which made other batches: it can't be gone on with. ` +
          `Begin another run, with the adapter in that folder if you like (--adapter ${path} --out FOLDER).`,
      );
    }
    if (run.format !== format) throw damaged(`${runName} is of the format ${run.format}, and ${format} is read`);
    const bytes = Deno.readFileSync(`${path}/${stateName}`);
    if (hashOf([bytes]) !== run.stateHash) throw damaged(`${stateName} is not what was written`);
    using source = openSafetensors(memoryBytes(`${path}/${stateName}`, bytes));
    return { run, tensors: new Map(source.names.map((name) => [name, source.read(name)])) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw damaged(`${stateName} is missing`);
    if (error instanceof LowrankError && !error.message.startsWith("The checkpoint ")) throw damaged(error.message);
    throw error;
  }
}

/** The same for an object and for what its JSON is read as. */
function hashOfJson(value: unknown): string {
  return hashOf([new TextEncoder().encode(JSON.stringify(value))]);
}

function hashOf(parts: Iterable<Uint8Array>): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

/** Where two identities differ: `lr was 0.001 and is 0.01`. */
export function differencesOf(before: unknown, now: unknown, place = ""): string[] {
  const isTree = (x: unknown): x is Record<string, unknown> => typeof x === "object" && x !== null && !Array.isArray(x);
  if (isTree(before) && isTree(now)) {
    const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
    return [...keys].flatMap((key) => differencesOf(before[key], now[key], place === "" ? key : `${place} ${key}`));
  }
  const [a, b] = [before, now].map((x) => JSON.stringify(x) ?? "not given");
  return a === b ? [] : [`${place} was ${a} and is ${b}`];
}
