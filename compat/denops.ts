/** The types of `@denops/std` (JSR) that the editor plugin names, for where JSR can't be reached. */

/** The editor, as a plugin sees it. */
export interface Denops {
  readonly name: string;
  dispatcher: Record<string, (...args: unknown[]) => unknown>;
  call(fn: string, ...args: unknown[]): Promise<unknown>;
  cmd(command: string, context?: Record<string, unknown>): Promise<void>;
  eval(expression: string, context?: Record<string, unknown>): Promise<unknown>;
}

/** What a plugin's main.ts exports as `main`. */
export type Entrypoint = (denops: Denops) => void | Promise<void>;
