/** How much memory a run will take, from the plans of its programs: nothing is computed for it. */
import { sizeOf } from "../../core/aval.ts";
import { type DType, storageBytes } from "../../core/dtype.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import type { Leaf } from "../../core/model.ts";
import { trace } from "../../core/trace.ts";
import { flatten, mapTree } from "../../core/tree.ts";
import { build, type Target } from "../../kernels/runtime/compile.ts";
import { type BatchColumns, mapColumns } from "../../data/examples.ts";
import { type CompiledStepOptions, sharedFunction, stepFunctions } from "../compiled_step.ts";
import { measureFunction } from "../evaluate.ts";
import { referenceFunction } from "../reference.ts";
import { baseOf, type Trainee } from "../trainee.ts";

/** Bytes that a run takes on its device at the moment when it takes most. */
export interface MemoryEstimate {
  /** The base as it is held. */
  readonly weights: number;
  /** Trained parameters: those that the run begins with, those that it changes, and the best where they are kept. */
  readonly trained: number;
  /** What the optimiser keeps of every trained parameter. */
  readonly optimiser: number;
  /** What the largest program computes in between and returns, activations above all, and the batch it reads. */
  readonly activations: number;
  /** What continuing prompts takes, where samples are made. */
  readonly samples?: number;
  readonly total: number;
}

/** What decides how much memory a run takes. */
export interface MemoryPlan extends Pick<CompiledStepOptions, "objective" | "optimiser" | "clip"> {
  readonly device: Target;
  /** Rows of a batch. */
  readonly batch: number;
  /** Batches of a step. */
  readonly accumulate: number;
  /** The lengths that batches may have. */
  readonly lengths: readonly number[];
  /** Whether rows hold several documents. */
  readonly pack?: boolean;
  /** Whether the best parameters are kept beside the last. */
  readonly keepBest: boolean;
  /** Rows and lengths of the batches of evaluations. */
  readonly evaluation?: { readonly batch: number; readonly lengths: readonly number[] };
  /** Bytes that continuing prompts takes: {@link sampleBytes}. */
  readonly samples?: number;
}

/** Estimates the memory of training `trainee`. */
export function estimateMemory<P, F>(trainee: Trainee<P, F>, plan: MemoryPlan): MemoryEstimate {
  const { objective, optimiser, accumulate, device } = plan;
  const params = placeholders(trainee.trainable);
  const frozen = placeholders(trainee.frozen);
  const init = trace((p: P) => optimiser.init(p), [params]);
  const state = { params, optimiser: init.unflatten(init.graph.outputs) };
  const key = newInput({ shape: [2], dtype: "u32" });
  const { whole, first, more, finish } = stepFunctions(trainee, plan);
  /** What all batches add up to, as a column of each. */
  const shared = (columns: BatchColumns<Value>) => {
    if (objective.shared === undefined) return {};
    return mapTree(sharedFunction(trainee, objective)(params, frozen, columns), scalar) as Record<string, Value>;
  };
  const batchOf = (rows: number, seq: number) => {
    const columns = columnsOf(rows, seq, plan);
    return { ...columns, ...shared(columns) };
  };

  // One arena serves all programs of a device, so the longest of them counts.
  const columns = batchOf(plan.batch, Math.max(...plan.lengths));
  const rest = [frozen, { columns, count: scalar(), serial: scalar() }, key] as const;
  const programs: ProgramMemory[] = [];
  if (objective.shared) {
    programs.push(measure(sharedFunction(trainee, objective), [params, frozen, columns], [], device));
  }
  if (objective.reference) {
    const base = placeholders(baseOf(trainee).params);
    programs.push(measure(referenceFunction(trainee, objective), [base, columns], [], device));
  }
  if (accumulate === 1) programs.push(measure(whole, [state, scalar(), ...rest], [0], device));
  else {
    const sum = placeholders(first(params, ...rest));
    programs.push(
      measure(first, [params, ...rest], [], device),
      measure(more, [sum, params, ...rest], [0], device),
      measure(finish, [state, sum, scalar()], [0, 1], device),
    );
  }
  const { evaluation } = plan;
  if (evaluation) {
    const columns = batchOf(evaluation.batch, Math.max(...evaluation.lengths));
    programs.push(measure(measureFunction(trainee, objective), [params, frozen, columns], [], device));
  }

  const arena = Math.max(...programs.map(({ arena }) => arena));
  // Gradients that add up are held from one program to the next.
  const between = accumulate > 1 ? bytesOf(params) : 0;
  const activations = arena + between + Math.max(...programs.map((program) => program.beside)) +
    bytesOf(columnsOf(plan.batch, Math.max(...plan.lengths), plan)) * accumulate;
  const weights = bytesOf(trainee.frozen);
  const trained = bytesOf(params) * (plan.keepBest ? 3 : 2);
  const kept = bytesOf(state.optimiser);
  const { samples = 0 } = plan;
  const total = weights + trained + kept + activations + samples;
  return { weights, trained, optimiser: kept, activations, ...(samples > 0 && { samples }), total };
}

/** Bytes of one program, its arguments left out. */
interface ProgramMemory {
  readonly arena: number;
  /** Results that take no argument's memory. */
  readonly beside: number;
}

/** Plans a function for arguments of which those at `donate` are donated. */
function measure(
  f: (...args: any[]) => unknown,
  args: readonly unknown[],
  donate: readonly number[],
  target: Target,
): ProgramMemory {
  const owned = args.flatMap((arg, i) => flatten(arg).leaves.map(() => donate.includes(i)));
  const { program } = build(trace(f, args).graph, new Set(owned.keys().filter((leaf) => owned[leaf])), true, target);
  const beside = program.outputs.filter(({ donated }) => donated === undefined);
  return {
    arena: program.arenaBytes,
    beside: beside.reduce((sum, { dtype, size }) => sum + storageBytes(dtype, size), 0),
  };
}

/** The columns of a batch as values that stand for them. */
function columnsOf(rows: number, seq: number, { objective, pack }: MemoryPlan) {
  const { columns } = objective[pack ? "pack" : "collate"]!([], { rows, seq, padId: 0 });
  return mapColumns(columns, (column) => newInput(column));
}

/** The same tree with values for leaves. */
function placeholders<T>(tree: T): T {
  return mapTree(tree, (leaf: unknown) => newInput((leaf as Leaf).aval)) as T;
}

const scalar = () => newInput({ shape: [], dtype: "f32" });

/** The bytes of a tree's leaves, each counted once. */
function bytesOf(tree: unknown): number {
  const leaves = new Set(flatten<Leaf>(tree).leaves);
  return [...leaves].reduce((sum, { aval }) => sum + storageBytes(aval.dtype as DType, sizeOf(aval.shape)), 0);
}
