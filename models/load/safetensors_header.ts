/** The header of a safetensors file: an u64 length, that many bytes of JSON, then the tensors without gaps. */
import { FileError } from "../../core/errors.ts";
import type { ByteSource } from "./byte_source.ts";

/** One tensor of the header; `begin` and `end` are byte offsets in the file. */
export interface SafetensorsEntry {
  readonly stored: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** What a safetensors file says before its data. */
export interface SafetensorsHeader {
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
}

/** The format's own limit on the length of the header, in bytes. */
const longestHeader = 100_000_000;

/** Bits of every element type of the format (safetensors 0.8), also of those that are only copied, never read. */
export const elementBits: Readonly<Record<string, number>> = {
  ...{ BOOL: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8 },
  ...{ I16: 16, U16: 16, F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32, C64: 64, F64: 64, I64: 64, U64: 64 },
};

/**
 * Reads and checks a header: every tensor's bytes must be its shape's, and together they must cover the file, without a gap
 * or an overlap. Throws a {@link FileError} that says what is wrong and what mends it.
 */
export function readHeader(source: ByteSource): SafetensorsHeader {
  const refuse = (problem: string, mend = "bring it again, it is damaged or truncated"): never => {
    throw new FileError(`${source.name} is no whole safetensors file: ${problem}; ${mend}.`);
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
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of tensors) entries.set(name, checkEntry(name, value, start, refuse));
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

type Refuse = (problem: string, mend?: string) => never;

function parseHeader(bytes: Uint8Array, refuse: Refuse) {
  let header: unknown;
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (error) {
    refuse(`its header is not JSON (${(error as Error).message})`);
  }
  if (!isObject(header) || !text.startsWith("{")) return refuse("its header is not a JSON object");
  const twice = repeatedKey(text);
  if (twice !== null) refuse(`its header names ${JSON.stringify(twice)} twice`);
  const metadata = Object.hasOwn(header, "__metadata__") ? header.__metadata__ : {};
  if (!isObject(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
    return refuse("its __metadata__ holds something that is not a string");
  }
  const tensors = Object.entries(header).filter(([name]) => name !== "__metadata__");
  return { metadata: metadata as Record<string, string>, tensors };
}

function checkEntry(name: string, value: unknown, start: number, refuse: Refuse): SafetensorsEntry {
  const counts = (list: unknown): list is number[] =>
    Array.isArray(list) && list.every((n) => Number.isSafeInteger(n) && n >= 0);
  if (!isObject(value)) return refuse(`its header says nothing usable of ${name}`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(elementBits, dtype)) {
    return refuse(
      `${name} has the dtype ${JSON.stringify(dtype)}, which is not one of ${Object.keys(elementBits).join(", ")}`,
      "convert it to one of these",
    );
  }
  if (!counts(shape)) return refuse(`${name} has the shape ${JSON.stringify(shape)}`);
  if (!counts(offsets) || offsets.length !== 2 || offsets[1] < offsets[0]) {
    return refuse(`${name} has the data_offsets ${JSON.stringify(offsets)}`);
  }
  const bits = shape.reduce((product, d) => product * d, elementBits[dtype]);
  const [begin, end] = offsets;
  if (bits !== (end - begin) * 8) {
    refuse(`${name} is ${dtype} [${shape}], ${bits / 8} bytes, and its data_offsets span ${end - begin}`);
  }
  return { stored: dtype, shape, begin: start + begin, end: start + end };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** The first key that a valid JSON object's text repeats at its top level (JSON.parse would keep the last), or null. */
function repeatedKey(text: string): string | null {
  const seen = new Set<string>();
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") depth--;
    else if (c === '"') {
      const from = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === "\\") i++;
      if (depth !== 1) continue;
      let next = i + 1;
      while (" \t\r\n".includes(text[next])) next++;
      if (text[next] !== ":") continue;
      const key = JSON.parse(text.slice(from, i + 1)) as string;
      if (seen.has(key)) return key;
      seen.add(key);
    }
  }
  return null;
}
