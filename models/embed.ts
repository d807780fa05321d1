/** Sentence embeddings of many texts: token ids in, vectors of length 1 out. */
import { DataError, OptionError } from "../core/errors.ts";
import type { EncoderModel } from "../core/model.ts";
import { homeOf, perCompiler } from "../core/runtime.ts";
import { readTensors, type Tensor, upload } from "../core/tensor.ts";
import { outsideTable } from "./token_inputs.ts";
import { checkMembers, checkOptions } from "../core/options.ts";

/** Embeds rows of token ids, each to f32[D], in the order in which they were given. */
export type Embed<P = unknown> = (params: P, rows: readonly (readonly number[])[]) => Promise<Float32Array[]>;

// Rows are padded to multiples of this, so that few programs are compiled.
const bucket = 16;

/**
 * Makes the embedder of an encoder: rows of like length go through it together, `batch` at a time. Its programs are compiled
 * on first use and kept.
 *
 * @throws {OptionError} for a batch that is no positive whole number
 */
export function embedder<P>(
  model: Pick<EncoderModel<P>, "embed" | "sizes">,
  options: { readonly batch?: number } = {},
): Embed<P> {
  checkOptions("embedder", options, { batch: true });
  checkMembers("embedder", "an encoder", model, ["embed", "sizes"]);
  const { batch = 16 } = options;
  if (!Number.isInteger(batch) || batch < 1) {
    throw new OptionError(`can't embed ${batch} texts at a time: give a whole number of at least 1`);
  }
  const embedOn = perCompiler((jit) => jit(model.embed));
  return async (params, rows) => {
    const home = homeOf(params);
    const embed = embedOn(home);
    rows.forEach((row, i) => {
      const outside = outsideTable(row, model.sizes.vocabSize);
      if (outside !== null) throw new DataError(`text ${i + 1} ${outside}`);
    });
    const byLength = [...rows.keys()].sort((a, b) => rows[a].length - rows[b].length);
    const out: Float32Array[] = [];
    for (let at = 0; at < rows.length; at += batch) {
      const some = byLength.slice(at, at + batch);
      const longest = Math.max(1, rows[some.at(-1)!].length);
      // A row that is too long is refused by the model, with its own length; padding is no reason to.
      const length = Math.max(longest, Math.min(Math.ceil(longest / bucket) * bucket, model.sizes.contextLength));
      // The last batch is filled up with empty rows, for the sake of one program.
      const shape = [batch, length];
      const fill = (value: (row: readonly number[], t: number) => number): Tensor => {
        const data = Int32Array.from({ length: batch * length }, (_, i) => {
          const row = rows[some[Math.floor(i / length)]] ?? [];
          return i % length < row.length ? value(row, i % length) : 0;
        });
        return upload(home, { shape, dtype: "i32", data });
      };
      using inputIds = fill((row, t) => row[t]);
      using attentionMask = fill(() => 1);
      using made = embed(params, { inputIds, attentionMask });
      const [{ data, shape: [, width] }] = await readTensors([made]);
      some.forEach((row, i) => out[row] = Float32Array.from(data.slice(i * width, (i + 1) * width)));
    }
    return out;
  };
}
