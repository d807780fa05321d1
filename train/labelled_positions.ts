/** At which places of a batch something is to be predicted: a masked prompt needs no logits. */
import { ignoredLabel } from "../core/nn/loss.ts";
import type { HostTensor } from "../core/tensor.ts";
import type { Batch } from "../data/examples.ts";

/** Programs are compiled for a count of places: these shares of all, so that there are few. */
const shares = [1 / 4, 1 / 2, 3 / 4];

/**
 * The places b·T + t of a batch at which the next token is predicted, i32[N]: a quarter, half or three quarters of all, the
 * first among them those with a label. undefined where more are labelled.
 */
export const labelledPositions = (batch: Batch): HostTensor | undefined =>
  placesWhere(batch, (place, labels, seq) => (place + 1) % seq > 0 && labels[place + 1] !== ignoredLabel);

/** The same where each token is told itself: the places with a label. */
export const labelledPlaces = (batch: Batch): HostTensor | undefined =>
  placesWhere(batch, (place, labels) => labels[place] !== ignoredLabel);

function placesWhere(
  { columns: { labels: { shape: [rows, seq], data: labels } } }: Batch,
  isTold: (place: number, labels: HostTensor["data"], seq: number) => boolean,
): HostTensor | undefined {
  const all = rows * seq, isPredicted = (place: number) => isTold(place, labels, seq);
  const places = Int32Array.from({ length: all }, (_, place) => place);
  const labelled = places.filter(isPredicted);
  const share = shares.find((share) => labelled.length <= share * all);
  if (share === undefined) return undefined;
  const count = Math.ceil(share * all);
  const data = Int32Array.from([...labelled, ...places.filter((place) => !isPredicted(place))].slice(0, count));
  return { shape: [count], dtype: "i32", data };
}
