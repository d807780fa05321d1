/** Our reader of safetensors beside the reference one: they take the same files, and find the same in them. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { FileError } from "../../core/errors.ts";
import { memoryBytes } from "../../models/load/files/byte_source.ts";
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";
import { elementBits } from "../../models/load/safetensors/header.ts";
import { peer, runScript } from "./peer.ts";

/** Parts of a header that were well-formed, and what may stand in the place of one. */
const tokens = [
  ...["null", "true", "0", "1", "-0", "-1", "1.0", "1e0", "1e999", "18446744073709551615", "18446744073709551616"],
  ...[
    "{}",
    "[]",
    "[1]",
    '""',
    '"a"',
    '"F32"',
    '"__metadata__"',
    '"\\u005f_metadata__"',
    '"\\ud800"',
    '"\\ud83d\\ude00"',
  ],
  ...[
    '{"F32":null}',
    '{"F32":{}}',
    '["U8",[0],[0,0]]',
    '{"x":"1","x":"2"}',
    "dtype",
    ",",
    ":",
    " ",
    "\n",
    "\0",
    "\ufeff",
  ],
  ...["[".repeat(124) + "]".repeat(124), "[".repeat(125) + "]".repeat(125), "[".repeat(126) + "]".repeat(126)],
];

const shape = fc.array(fc.nat(4), { maxLength: 3 });
const dtype = fc.constantFrom(...Object.keys(elementBits));

/** The tokens of a header whose tensors lie behind one another, its metadata, and the size of its data. */
const layout = fc.record({
  tensors: fc.array(fc.record({ name: fc.constantFrom("a", "b", "", "é", "a.b"), dtype, shape }), { maxLength: 4 }),
  metadata: fc.constantFrom(null, "null", "{}", '{"format":"pt"}', '{"x":"1","x":"2"}', '{"n":1}'),
  extra: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1),
  turned: fc.boolean(),
}).map(({ tensors, metadata, extra, turned }) => {
  let at = 0;
  const entries = tensors.map(({ name, dtype, shape }) => {
    const size = Math.ceil(shape.reduce((n, d) => n * d, elementBits[dtype] ?? 32) / 8);
    return `"${name}":{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${at},${at += size}]}`;
  });
  const first = metadata === null ? [] : [`"__metadata__":${metadata}`];
  const text = `{${[...first, ...(turned ? entries.reverse() : entries)].join(",")}}`;
  return { tokens: text.match(/"[^"]*"|\d+|./g)!, size: Math.max(0, at + extra) };
});

/** A file, of which a token was perhaps replaced, or had another put before it. */
const file = fc.record({
  layout,
  changes: fc.array(
    fc.record({ at: fc.nat(), token: fc.constantFrom(...tokens), keep: fc.boolean(), copy: fc.boolean() }),
    { maxLength: 1 },
  ),
}).map(({ layout, changes }) => {
  const spelled = [...layout.tokens];
  for (const { at, token, keep, copy } of changes) {
    const place = at % spelled.length;
    spelled.splice(place, keep ? 0 : 1, copy ? spelled[(at >> 8) % spelled.length] : token);
  }
  const header = new TextEncoder().encode(spelled.join(""));
  const bytes = new Uint8Array(8 + header.length + layout.size);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(header, 8);
  bytes.fill(7, 8 + header.length);
  return bytes;
});

function contents(bytes: Uint8Array) {
  try {
    using source = openSafetensors(memoryBytes("m.safetensors", bytes));
    const entries = source.names.map((name) => {
      const { stored, shape } = source.entry(name);
      return [name, [stored, shape, source.bytes(name).toHex()]] as const;
    });
    return { metadata: source.metadata, tensors: Object.fromEntries(entries) };
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    return null;
  }
}

peer("the reference reader takes and refuses the same files, and finds the same in them", async () => {
  const files = fc.sample(file, { numRuns: 4000, seed: 8 });
  const theirs = await runScript<unknown[]>("safetensors_read.py", files.map((bytes) => bytes.toHex()));
  const ours = files.map(contents);
  ours.forEach((found, i) => {
    const header = new TextDecoder().decode(files[i].subarray(8));
    assertEquals({ header, found }, { header, found: theirs[i] });
  });
  const taken = ours.filter((found) => found !== null).length;
  assertEquals(taken > 1000, true, `${taken} of ${files.length} files are whole`);
});
