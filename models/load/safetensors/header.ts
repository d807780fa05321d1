/** The header of a safetensors file: an u64 length, that many bytes of JSON, then the tensors without gaps. */
import { FileError } from "../../../core/errors.ts";
import type { ByteSource } from "../files/byte_source.ts";
import { type Json, JsonEntries, JsonNumber, parseJsonEntries } from "./json_entries.ts";

/** One tensor of the header; `begin` and `end` are byte offsets in the file. */
export interface SafetensorsEntry {
  readonly stored: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** The header of a safetensors file. */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
}

/** The format's own limit on the length of the header, in bytes. */
const longestHeader = 100_000_000;

/** Bits of every element type of the format (safetensors 0.8), also of those that are only copied, never read. */
export const elementBits: Readonly<Record<string, number>> = {
  ...{ BOOL: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6, U8: 8, I8: 8 },
  ...{ F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8 },
  ...{ I16: 16, U16: 16, F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32, C64: 64, F64: 64, I64: 64, U64: 64 },
};

/**
 * Reads and checks a header as the reference reader does: every tensor's bytes must be its shape's, and together they must
 * cover the file, without a gap or an overlap; of a tensor named twice the last entry counts. Throws a {@link FileError} that
 * says what is wrong and what remedies it.
 */
export function readHeader(source: ByteSource): SafetensorsHeader {
  const refuse = (problem: string, remedy = "download it again; it is damaged or truncated"): never => {
    throw new FileError(`${source.name} is not a complete safetensors file: ${problem}; ${remedy}.`);
  };
  if (source.size < 8) refuse(`it has ${source.size} bytes and the header's length alone takes 8`);
  const prefix = new Uint8Array(8);
  source.read(0, prefix);
  const claimed = new DataView(prefix.buffer).getBigUint64(0, true);
  const length = Number(claimed);
  if (length > longestHeader) {
    refuse(
      `it claims a header of ${claimed} bytes and ${longestHeader} are allowed`,
      "it is damaged or of another format",
    );
  }
  if (8 + length > source.size) refuse(`its header should end at byte ${8 + length} and the file has ${source.size}`);
  const bytes = new Uint8Array(length);
  source.read(8, bytes);
  const { metadata, tensors } = parseHeader(bytes, refuse);

  const start = 8 + length;
  const fields = new Map(tensors.map(([name, value]) => [name, readEntry(name, value, refuse)] as const));
  const entries = new Map([...fields].map(([name, entry]) => [name, place(name, entry, start, refuse)] as const));
  let at = start;
  let before = "the header";
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)) {
    if (entry.begin !== at) {
      refuse(
        `${entry.begin < at ? `${name} begins inside ${before}` : `there is a hole between ${before} and ${name}`} ` +
          `(it begins at byte ${entry.begin - start} of the data, and ${before} ends at ${at - start})`,
      );
    }
    [at, before] = [entry.end, name];
  }
  if (at > source.size) refuse(`its tensors end at byte ${at} and the file has ${source.size}`);
  if (at < source.size) refuse(`${source.size - at} bytes follow the last tensor`);
  return { metadata, entries };
}

type Refuse = (problem: string, remedy?: string) => never;

function parseHeader(bytes: Uint8Array, refuse: Refuse) {
  let header: Json = null;
  try {
    header = parseJsonEntries(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (error) {
    refuse(`its header is not JSON (${(error as Error).message})`);
  }
  if (!(header instanceof JsonEntries)) return refuse("its header is not a JSON object");
  const [metadata = null, second] = header.list.filter(([name]) => name === "__metadata__").map(([, value]) => value);
  if (second !== undefined) refuse("its header has two __metadata__");
  const texts = metadata === null ? [] : metadata instanceof JsonEntries ? metadata.list : null; // mlx writes null
  if (texts === null || texts.some(([, value]) => typeof value !== "string")) {
    return refuse("its __metadata__ holds something that is not a string");
  }
  return {
    metadata: Object.fromEntries(texts) as Record<string, string>,
    tensors: header.list.filter(([name]) => name !== "__metadata__"),
  };
}

/** An entry's fields, in the order in which a list gives them. */
const entryFields = ["dtype", "shape", "data_offsets"];
/** The reference reader counts in 64 bits, and refuses what overflows. */
const tooMany = 1n << 64n;

/** A tensor's entry as written, not yet checked. */
interface Fields {
  readonly dtype: string;
  readonly shape: readonly bigint[];
  readonly offsets: readonly bigint[];
}

function readEntry(name: string, value: Json, refuse: Refuse): Fields {
  if (Array.isArray(value) && value.length === entryFields.length) {
    value = new JsonEntries(value.map((field, i) => [entryFields[i], field]));
  }
  if (!(value instanceof JsonEntries)) return refuse(`its header says nothing usable of ${name}`);
  const { list } = value;
  const [named, dims, span] = entryFields.map((field) => {
    const [found = null, second] = list.filter(([key]) => key === field).map(([, inner]) => inner);
    return second === undefined ? found : refuse(`${name} has two ${field}`);
  });
  // Rust's reader takes a variant's name also as {"F32":null}.
  const isVariant = named instanceof JsonEntries && named.list.length === 1 && named.list[0][1] === null;
  const dtype = isVariant ? named.list[0][0] : named;
  if (typeof dtype !== "string" || !Object.hasOwn(elementBits, dtype)) {
    return refuse(
      `${name} has the dtype ${spelled(dtype)}, which is not one of ${Object.keys(elementBits).join(", ")}`,
      "convert it to one of these",
    );
  }
  const shape = counts(dims) ?? refuse(`${name} has the shape ${spelled(dims)}`);
  const offsets = counts(span);
  if (offsets?.length !== 2) return refuse(`${name} has the data_offsets ${spelled(span)}`);
  return { dtype, shape, offsets };
}

function place(name: string, { dtype, shape, offsets: [begin, end] }: Fields, start: number, refuse: Refuse) {
  if (end < begin) refuse(`${name} has the data_offsets [${begin},${end}]`);
  const bits = [...shape, BigInt(elementBits[dtype])].reduce(
    (product, d) =>
      product * d < tooMany ? product * d : refuse(`${name} has the shape [${shape}], more than 64 bits can count`),
    1n,
  );
  if (bits !== (end - begin) * 8n) {
    refuse(`${name} is ${dtype} [${shape}], ${Number(bits) / 8} bytes, and its data_offsets span ${end - begin}`);
  }
  return { stored: dtype, shape: shape.map(Number), begin: start + Number(begin), end: start + Number(end) };
}

/** The list of 64-bit counts that a value is, or null. */
function counts(value: Json): bigint[] | null {
  if (!Array.isArray(value)) return null;
  const numbers = value.map((n) => n instanceof JsonNumber && /^\d+$/.test(n.digits) ? BigInt(n.digits) : tooMany);
  return numbers.every((n) => n < tooMany) ? numbers : null;
}

/** A value as an error sentence repeats it. */
function spelled(value: Json): string {
  if (value instanceof JsonNumber) return value.digits;
  if (value instanceof JsonEntries) return "{…}";
  return Array.isArray(value) ? `[${value.map(spelled)}]` : JSON.stringify(value);
}
