/** What watches a training run: it gets every step, evaluates the parameters when it asks to, and may end the run. */

/** One step as a person or a log wants it. */
export interface StepLine {
  /** From 1. */
  readonly step: number;
  /** Before the step's update, in nats a labelled token. */
  readonly loss: number;
  /** The gradients' global norm before clipping. */
  readonly gradNorm: number;
  /** The step's learning rate. */
  readonly lr: number;
  /** Tokens read since the run began, padding not counted. */
  readonly tokens: number;
  /** What else the objective measures of the step's rows, before the update; by name. */
  readonly measures?: Readonly<Record<string, number>>;
}

/** Why a watcher ends a run. */
export interface Stop {
  /** Why. */
  readonly reason: "no progress" | "diverged";
  /** The last step that was done. */
  readonly step: number;
  /** The same as a sentence, with its numbers. */
  readonly message: string;
}

/** A watcher of one run. */
export interface Watch {
  /** Called for every finished step, in order; a {@link Stop} that it returns ends the run. */
  onStep(line: StepLine): Stop | null;
  /** Whether to evaluate the parameters after `step` updates; asked once for each step, and for 0 at the start. */
  due(step: number): boolean;
  /** Evaluates the parameters after `step` updates. They stay the loop's: whatever is to be kept has to be copied. */
  evaluate(step: number, params: unknown): Promise<Stop | null>;
  /** The best evaluation so far: the loop keeps a checkpoint of it. */
  readonly best?: { readonly step: number; readonly loss: number } | null;
  /** What it remembers, as JSON: it goes into every checkpoint. */
  save?(): unknown;
  /** Takes up what {@link save} gave, before the first step. The best parameters, if any, are its own then. */
  restore?(saved: unknown, best: unknown): void;
}
