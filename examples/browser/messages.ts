/** What the page and its engine say to each other. The engine is a worker: the page never waits for it. */
import type { DeviceChoice } from "../../mod.ts";
import type { Score } from "../letters/score.ts";

/** A row to learn from. */
export interface PairRow {
  readonly prompt: string;
  readonly completion: string;
}

/** From the page. */
export type Order =
  | { readonly kind: "open"; readonly device: DeviceChoice; readonly model: string }
  /** Without rows: the letters. */
  | { readonly kind: "train"; readonly steps: number; readonly rows?: readonly PairRow[] }
  | { readonly kind: "stop" }
  | { readonly kind: "ask"; readonly text: string };

/** From the engine. */
export type Report =
  | { readonly kind: "opened"; readonly device: string; readonly reason: string; readonly parameters: number }
  | { readonly kind: "doing"; readonly what: string }
  | { readonly kind: "score"; readonly when: "before" | "after"; readonly score: Score }
  | { readonly kind: "step"; readonly step: number; readonly steps: number; readonly loss: number }
  | { readonly kind: "trained"; readonly adapter: Uint8Array; readonly seconds: number; readonly trainable: number }
  | { readonly kind: "answer"; readonly base: string; readonly tuned: string | null }
  | { readonly kind: "failed"; readonly message: string };

/** A worker's side of the line to its page, in the words of the web. */
export interface WorkerScope<In, Out> {
  onmessage: ((event: MessageEvent<In>) => void) | null;
  postMessage(message: Out): void;
}
