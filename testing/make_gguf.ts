/** Writes small GGUF files for tests of the reader: metadata of the types named here, tensors as given bytes. */

/** A metadata value with its GGUF type. */
export type Meta =
  | { readonly u32: number }
  | { readonly i32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly i32s: readonly number[] };

/** A tensor: its GGUF type number, its dimensions outermost first, its bytes. */
export interface RawTensor {
  readonly type: number;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export function makeGguf(
  metadata: Readonly<Record<string, Meta>>,
  tensors: Readonly<Record<string, RawTensor>>,
  { alignment = 32, version = 3 } = {},
): Uint8Array<ArrayBuffer> {
  const out: number[] = [];
  const view = new DataView(new ArrayBuffer(8));
  const put = (bytes: number, set: () => void) => {
    set();
    out.push(...new Uint8Array(view.buffer, 0, bytes));
  };
  const u32 = (n: number) => put(4, () => view.setUint32(0, n, true));
  const i32 = (n: number) => put(4, () => view.setInt32(0, n, true));
  const u64 = (n: number) => put(8, () => view.setBigUint64(0, BigInt(n), true));
  const text = (s: string) => {
    const bytes = new TextEncoder().encode(s);
    u64(bytes.length);
    out.push(...bytes);
  };
  const pad = () => {
    while (out.length % alignment !== 0) out.push(0);
  };
  out.push(...new TextEncoder().encode("GGUF"));
  u32(version);
  u64(Object.keys(tensors).length);
  u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    text(key);
    if ("u32" in value) u32(4), u32(value.u32);
    else if ("i32" in value) u32(5), i32(value.i32);
    else if ("f32" in value) u32(6), put(4, () => view.setFloat32(0, value.f32, true));
    else if ("bool" in value) u32(7), out.push(value.bool ? 1 : 0);
    else if ("text" in value) u32(8), text(value.text);
    else if ("texts" in value) u32(9), u32(8), u64(value.texts.length), value.texts.forEach(text);
    else u32(9), u32(5), u64(value.i32s.length), value.i32s.forEach(i32);
  }
  let offset = 0;
  for (const [name, tensor] of Object.entries(tensors)) {
    text(name);
    u32(tensor.shape.length);
    for (const d of [...tensor.shape].reverse()) u64(d);
    u32(tensor.type);
    u64(offset);
    offset += Math.ceil(tensor.bytes.length / alignment) * alignment;
  }
  pad();
  const whole = new Uint8Array(out.length + offset);
  whole.set(out);
  let at = out.length;
  for (const { bytes } of Object.values(tensors)) {
    whole.set(bytes, at);
    at += Math.ceil(bytes.length / alignment) * alignment;
  }
  return whole;
}

/** The tokens of {@link wholeLlama}. */
export const wholePieces: readonly string[] = "<unk> <s> </s> <0x41> ▁ a b ab ▁ab ba <x> <y>".split(" ");

/** The metadata of a whole small Llama with a tokenizer of either kind: 12 tokens, of 8 numbers each. */
export function wholeLlama(kind: "gpt2" | "llama"): Record<string, Meta> {
  return {
    "general.architecture": { text: "llama" },
    "general.alignment": { u32: 32 },
    "llama.block_count": { u32: 1 },
    "llama.context_length": { u32: 64 },
    "llama.embedding_length": { u32: 8 },
    "llama.feed_forward_length": { u32: 8 },
    "llama.attention.head_count": { u32: 2 },
    "llama.attention.layer_norm_rms_epsilon": { f32: 0.5 },
    "tokenizer.ggml.model": { text: kind },
    "tokenizer.ggml.tokens": {
      texts: kind === "llama" ? wholePieces : wholePieces.map((token) => token.replaceAll("▁", "Ġ")),
    },
    "tokenizer.ggml.token_type": { i32s: [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1] },
    "tokenizer.ggml.bos_token_id": { u32: 1 },
    "tokenizer.ggml.eos_token_id": { u32: 2 },
    ...(kind === "gpt2"
      ? { "tokenizer.ggml.pre": { text: "gpt-2" }, "tokenizer.ggml.merges": { texts: ["a b", "Ġ ab", "b a"] } }
      : { "tokenizer.ggml.scores": { i32s: wholePieces.map((_, i) => -i) } }),
  };
}

/** f32 values as a GGUF tensor. */
export function f32Tensor(shape: readonly number[], values: ArrayLike<number>): RawTensor {
  return { type: 0, shape, bytes: new Uint8Array(Float32Array.from(values).buffer) };
}
