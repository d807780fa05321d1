/** Writes GGUF files, version 3: metadata, tensor infos, aligned data. Format: ggml-org/ggml, docs/gguf.md. */
import { FileError } from "../../../core/errors.ts";
import type { HostTensor } from "../../../core/tensor.ts";

/** A metadata value that is written: a text, or a number as f32. */
export type GgufMetadata = ReadonlyMap<string, string | { readonly f32: number }>;

const alignment = 32;
/** GGUF's numbers of the tensor types that are written. */
const tensorTypes: Readonly<Record<string, number>> = { f32: 0, f16: 1, bf16: 30 };

/**
 * The bytes of a GGUF file, in parts that share memory with the tensors.
 *
 * @param tensors by name, shapes outermost first as everywhere here
 * @throws {FileError} for a dtype that GGUF has no plain type for
 */
export function encodeGguf(metadata: GgufMetadata, tensors: ReadonlyMap<string, HostTensor>): Uint8Array[] {
  const header = new Writer();
  header.bytes(new TextEncoder().encode("GGUF"));
  header.u32(3);
  header.u64(tensors.size);
  header.u64(metadata.size);
  for (const [key, value] of metadata) {
    header.text(key);
    if (typeof value === "string") {
      header.u32(8);
      header.text(value);
    } else {
      header.u32(6);
      header.f32(value.f32);
    }
  }
  let offset = 0;
  const data: Uint8Array[] = [];
  for (const [name, tensor] of tensors) {
    const type = tensorTypes[tensor.dtype];
    if (type === undefined) throw new FileError(`${name} is ${tensor.dtype}, which is not written to GGUF files.`);
    header.text(name);
    header.u32(tensor.shape.length);
    for (const d of tensor.shape.toReversed()) header.u64(d);
    header.u32(type);
    header.u64(offset);
    const bytes = new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
    const padding = new Uint8Array(-bytes.length & (alignment - 1));
    data.push(bytes, padding);
    offset += bytes.length + padding.length;
  }
  header.bytes(new Uint8Array(-header.length & (alignment - 1)));
  return [header.whole(), ...data];
}

/** Little-endian fields one after the other. */
class Writer {
  readonly #parts: Uint8Array[] = [];
  length = 0;

  bytes(part: Uint8Array): void {
    this.#parts.push(part);
    this.length += part.length;
  }
  u32(n: number): void {
    this.#number(4, (view) => view.setUint32(0, n, true));
  }
  u64(n: number): void {
    this.#number(8, (view) => view.setBigUint64(0, BigInt(n), true));
  }
  f32(n: number): void {
    this.#number(4, (view) => view.setFloat32(0, n, true));
  }
  text(s: string): void {
    const bytes = new TextEncoder().encode(s);
    this.u64(bytes.length);
    this.bytes(bytes);
  }
  whole(): Uint8Array {
    const out = new Uint8Array(this.length);
    let at = 0;
    for (const part of this.#parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }
  #number(size: number, set: (view: DataView) => void): void {
    const part = new Uint8Array(size);
    set(new DataView(part.buffer));
    this.bytes(part);
  }
}
