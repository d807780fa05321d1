import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { fromBf16, fromF16, toBf16, toF16 } from "../../../core/dtype.ts";
import type { HostTensor } from "../../../core/tensor.ts";
import { FileError } from "../../../core/errors.ts";
import { memoryBytes } from "../files/byte_source.ts";
import { encodeSafetensors, openSafetensors, writeSafetensors } from "./safetensors.ts";
import { elementBits } from "./header.ts";

const values = [1.5, -2.25, 0, -0, 3.0e-5, 65504, Infinity];

const tensors = new Map<string, HostTensor>([
  ["wide", { dtype: "f32", shape: [7], data: Float32Array.from(values) }],
  ["half", { dtype: "f16", shape: [7], data: Uint16Array.from(values, toF16) }],
  ["brain", { dtype: "bf16", shape: [7, 1], data: Uint16Array.from(values, toBf16) }],
  ["ids", { dtype: "i32", shape: [2], data: Int32Array.of(-(2 ** 31), 2 ** 31 - 1) }],
  ["scalar", { dtype: "f32", shape: [], data: Float32Array.of(3.25) }],
  ["empty", { dtype: "f32", shape: [0, 4], data: new Float32Array() }],
  ["mask", { dtype: "bool", shape: [3], data: Uint32Array.of(1, 0, 1) }],
]);

function join(parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) out.set(part, (at += part.length) - part.length);
  return out;
}

/** A file with this text as its header and `data` zero bytes. */
function file(header: string, data: number): Uint8Array {
  const text = new TextEncoder().encode(header);
  const out = new Uint8Array(8 + text.length + data);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(text, 8);
  return out;
}

const open = (bytes: Uint8Array) => openSafetensors(memoryBytes("m.safetensors", bytes));

Deno.test("what is written is read back, bit for bit, and the same tensors give the same bytes", () => {
  const bytes = join(encodeSafetensors(tensors));
  assertEquals(join(encodeSafetensors(new Map([...tensors].reverse()))), bytes);
  const source = open(bytes);
  assertEquals(source.metadata, { format: "pt" });
  assertEquals([...source.names].sort(), [...tensors.keys()].sort());
  for (const [name, tensor] of tensors) {
    assertEquals(source.read(name), tensor);
    assertEquals(source.entry(name).shape, tensor.shape);
  }
});

Deno.test("a float tensor is read as any float dtype, rounded once", () => {
  const source = open(join(encodeSafetensors(tensors)));
  for (const name of ["wide", "half", "brain"]) {
    const wide = source.read(name, "f32").data;
    assertEquals([...source.read(name, "f16").data].map(fromF16), [...wide].map((v) => fromF16(toF16(v))));
    assertEquals([...source.read(name, "bf16").data].map(fromBf16), [...wide].map((v) => fromBf16(toBf16(v))));
  }
});

Deno.test("conversions agree with the scalar definitions for any bits", () => {
  fc.assert(fc.property(fc.uint32Array({ minLength: 1 }), (bits) => {
    const data = new Float32Array(bits.buffer);
    const source = open(join(encodeSafetensors(new Map([["a", { dtype: "f32", shape: [data.length], data }]]))));
    assertEquals([...source.read("a", "bf16").data], [...data].map(toBf16));
    assertEquals([...source.read("a", "f16").data].map(fromF16), [...data].map((v) => fromF16(toF16(v))));
  }));
});

Deno.test("reading into an array, and in pieces", () => {
  const data = Float32Array.from({ length: 600_000 }, (_, i) => Math.sin(i));
  const source = open(join(encodeSafetensors(new Map([["a", { dtype: "f32", shape: [600, 1000], data }]]))));
  const shared = new Float32Array(new SharedArrayBuffer(data.byteLength));
  assertEquals(source.read("a", "f32", shared).data, shared);
  assertEquals(new Float32Array(shared), data);
  assertEquals([...source.read("a", "bf16").data], [...data].map(toBf16));
  assertThrows(() => source.read("a", "f32", new Float32Array(3)), FileError, "an array of 3 elements");
});

Deno.test("a damaged file is refused with what is wrong", () => {
  const entry = (rest: string) => `{"a":{"dtype":"F32",${rest}}}`;
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(3), "it has 3 bytes"],
    [file('{"a":', 0), "its header is not JSON"],
    [file("[]", 0), "its header is not a JSON object"],
    [file("\ufeff{}", 0), "its header is not JSON"],
    [file("{}\0", 0), "its header is not JSON"],
    [file(entry('"shape":[4],"data_offsets":[0,8]'), 8), "a is F32 [4], 16 bytes, and its data_offsets span 8"],
    [file(entry('"shape":[4],"data_offsets":[0,16]'), 8), "its tensors end at byte"],
    [file(entry('"shape":[1],"data_offsets":[4,8]'), 8), "a hole between the header and a"],
    [file(entry('"shape":[1],"data_offsets":[0,4]'), 8), "4 bytes follow the last tensor"],
    [file(entry('"shape":[-1],"data_offsets":[0,4]'), 4), "a has the shape [-1]"],
    [file(entry('"shape":[1e300,1e300],"data_offsets":[0,4]'), 4), "a has the shape"],
    [file(entry('"shape":[1],"data_offsets":[4,0]'), 4), "a has the data_offsets [4,0]"],
    [file('{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}', 4), 'the dtype "F31"'],
    [file('{"__metadata__":{"format":1}}', 0), "__metadata__ holds something that is not a string"],
    [file(entry('"shape":[1.0],"data_offsets":[0,4]'), 4), "a has the shape [1.0]"],
    [file(entry('"shape":[1],"data_offsets":[-0,4]'), 4), "a has the data_offsets [-0,4]"],
    [file(entry('"shape":[1],"shape":[1],"data_offsets":[0,4]'), 4), "a has two shape"],
    [file(entry('"shape":[9223372036854775808,4,0],"data_offsets":[0,0]'), 0), "more than 64 bits can count"],
    [file(entry('"shape":[1],"data_offsets":[0,4],"x":1e999'), 4), "the number 1e999 is out of range"],
    [file(entry('"shape":[1],"data_offsets":[0,4],"x":"\\ud800"'), 4), "half of a surrogate pair"],
    [
      file(entry(`"shape":[1],"data_offsets":[0,4],"x":${"[".repeat(126)}${"]".repeat(126)}`), 4),
      "nested more than 127",
    ],
    [file('{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}', 1), "a is F4 [3], 1.5 bytes"],
    [file('{"__metadata__":null,"__metadata__":null}', 0), "two __metadata__"],
    [file('{"a":5}', 0), "its header says nothing usable of a"],
    [
      file(
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        12,
      ),
      "b begins inside a",
    ],
  ];
  for (const [bytes, sentence] of cases) assertThrows(() => open(bytes), FileError, sentence);
  const long = new Uint8Array(16);
  new DataView(long.buffer).setBigUint64(0, 1n << 62n, true);
  assertThrows(() => open(long), FileError, "a header of 4611686018427387904 bytes");
});

Deno.test("what the reference reader takes is taken", () => {
  const entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}';
  const cases: [header: string, data: number, names: string[], metadata: Record<string, string>][] = [
    ["{}", 0, [], {}],
    [` \n\t{"a":${entry}} \r\n`, 4, ["a"], {}],
    [`{"__metadata__":null,"a":${entry}}`, 4, ["a"], {}], // as mlx writes it
    [`{"__metadata__":{"x":"1","x":"2"},"a":${entry}}`, 4, ["a"], { x: "2" }],
    [`{"\\u005f_metadata__":{"x":"1"},"a":${entry}}`, 4, ["a"], { x: "1" }],
    [`{"a":{"dtype":"F32","shape":[9],"data_offsets":[3,99]},"\\u0061":${entry}}`, 4, ["a"], {}],
    ['{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":{"y":[1e5]}}}', 4, ["a"], {}],
    ['{"a":["F32",[1],[0,4]]}', 4, ["a"], {}],
    ['{"a":{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}}', 4, ["a"], {}],
    ['{"":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4, [""], {}],
    ['{"a":{"dtype":"F32","shape":[0,9007199254740993],"data_offsets":[0,0]}}', 0, ["a"], {}],
    [
      '{"c":{"dtype":"U8","shape":[0],"data_offsets":[1,1]},"b":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},' +
      '"a":{"dtype":"C64","shape":[0],"data_offsets":[0,0]}}',
      1,
      ["c", "b", "a"],
      {},
    ],
  ];
  for (const [header, data, names, metadata] of cases) {
    const source = open(file(header, data));
    assertEquals({ names: source.names, metadata: source.metadata }, { names, metadata }, header);
  }
  for (const [dtype, bits] of Object.entries(elementBits)) {
    const source = open(file(`{"a":{"dtype":"${dtype}","shape":[4],"data_offsets":[0,${bits / 2}]}}`, bits / 2));
    assertEquals(source.entry("a").stored, dtype);
  }
});

Deno.test("integers that do not fit are an error, and other types can be had as bytes", () => {
  const bytes = file(
    '{"big":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"f8":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[8,10]}}',
    10,
  );
  const source = open(bytes);
  assertEquals([...source.read("big").data], [0]);
  bytes[bytes.length - 4] = 1;
  assertThrows(() => source.read("big"), FileError, "which is no i32");
  assertThrows(() => source.read("f8"), FileError, "f8 in m.safetensors is F8_E4M3");
  assertEquals(source.bytes("f8").length, 2);
});

Deno.test("a file with any bytes changed or cut is read or refused with a sentence", () => {
  const whole = join(encodeSafetensors(tensors));
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, byte, length) => {
      const bytes = whole.slice(0, length < 40 ? length : whole.length);
      bytes[Math.min(at, bytes.length - 1)] = byte;
      try {
        const source = open(bytes);
        for (const name of source.names) if (source.entry(name).stored.length < 5) source.read(name);
      } catch (error) {
        if (!(error instanceof FileError)) throw error;
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("a write leaves no temporary file, and a folder that can't be made is reported", () => {
  const folder = Deno.makeTempDirSync();
  writeSafetensors(`${folder}/new/a.safetensors`, tensors);
  assertEquals([...Deno.readDirSync(`${folder}/new`)].map((entry) => entry.name), ["a.safetensors"]);
  using source = openSafetensors(`${folder}/new/a.safetensors`);
  assertEquals(source.read("wide").data, tensors.get("wide")!.data);
  assertThrows(
    () => writeSafetensors(`${folder}/new/a.safetensors/b`, tensors),
    FileError,
    "can't be written: a part of its path is a file",
  );
  Deno.removeSync(folder, { recursive: true });
});
