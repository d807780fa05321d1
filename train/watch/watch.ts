/** What looks on while a model is trained: told of every step, shown the parameters when it asks, free to end the run. */

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
  /** Told of every finished step, in order; what it returns ends the run. */
  onStep(line: StepLine): Stop | null;
  /** Whether it wants to look at the parameters after `step` updates; asked once for each step, and for 0 at the start. */
  due(step: number): boolean;
  /** Looks at the parameters after `step` updates, which stay the loop's: what is to be kept has to be copied. */
  evaluate(step: number, params: unknown): Promise<Stop | null>;
  /** The best look so far: the loop keeps a checkpoint of it. */
  readonly best?: { readonly step: number; readonly loss: number } | null;
  /** What it remembers, as JSON: it goes into every checkpoint. */
  save?(): unknown;
  /** Takes up what {@link save} gave, before the first step. The parameters of the best look, if any, are its own then. */
  restore?(saved: unknown, best: unknown): void;
}
