/** Packed words to f32 in a shader: one function a binding, four neighbours or one element at a time. */
import {
  codeTables,
  isPacked,
  type PackedFormat,
  packedFormats,
  packedLayout,
  type PackedType,
} from "../../core/packed/blocks.ts";
import type { ShaderWriter } from "./shader.ts";

/**
 * The name of the function that gives a packed operand's values: four from the place counted in fours where its binding is
 * wide, else one. Declares it when it is first asked for.
 */
export function packedReader(shader: ShaderWriter, operand: number): string {
  const { dtype, size } = shader.operands[operand];
  const { name, wide } = shader.binding(operand);
  if (!isPacked(dtype)) throw new Error(`${dtype} is not packed`);
  const reader = `unpack_${name}`;
  const layout = packedLayout(dtype, size);
  const format = packedFormats[dtype];
  const word = (at: string) => wide ? `word_${name}(${at})` : shader.read(operand, at);
  if (wide) {
    const vector = shader.read(operand, "i / 4u");
    shader.declareBlock(
      `word_${name}`,
      `fn word_${name}(i: u32) -> u32`,
      () => shader.line(`return ${vector}[i % 4u];`),
    );
  }
  shader.declareBlock(reader, `fn ${reader}(i: u32) -> ${wide ? "vec4<f32>" : "f32"}`, () => {
    // Place in the array of the run of 32, and of the shift of its words, that the values belong to.
    shader.line(`let run = i / ${wide ? 8 : 32}u;\nlet j = ${wide ? "i % 8u" : "i % 32u / 4u"};`);
    const code = wide ? codesOf(format, layout, (at) => shader.read(operand, at)) : codeOf(format, layout, word);
    shader.line(`let code = ${code};`);
    shader.line(`return ${scaled(shader, dtype, wide, layout, word)};`);
  });
  return reader;
}

type Layout = ReturnType<typeof packedLayout>;

/** Four codes as a vector of integers. */
function codesOf({ bits, code }: PackedFormat, { high }: Layout, vector: (at: string) => string): string {
  if (code === "signed") {
    return `bitcast<vec4<i32>>(${vector("i / 4u")} << vec4<u32>(24u - 8u * (j % 4u))) >> vec4<u32>(24u)`;
  }
  const low = `(${vector("run")} >> vec4<u32>(4u * j)) & vec4<u32>(15u)`;
  if (bits === 4) return low;
  const upper = `(${vector(`${high / 4}u + i / 16u`)} >> vec4<u32>(2u * (i % 16u))) & vec4<u32>(3u)`;
  return `(${low}) | ((${upper}) << vec4<u32>(4u))`;
}

/** One code as an integer. */
function codeOf({ bits, code }: PackedFormat, { high }: Layout, word: (at: string) => string): string {
  if (code === "signed") {
    return `bitcast<i32>(${word("i / 16u * 4u + i % 4u")} << (24u - 8u * (j % 4u))) >> 24u`;
  }
  const low = `(${word("run * 4u + i % 4u")} >> (4u * j)) & 15u`;
  if (bits === 4) return low;
  return `(${low}) | (((${word(`${high}u + i / 64u * 4u + i % 4u`)} >> (2u * (i % 64u / 4u))) & 3u) << 4u)`;
}

/** What `code` stands for, by what scales its group. */
function scaled(
  shader: ShaderWriter,
  type: PackedType,
  wide: boolean,
  { scales, supers, map }: Layout,
  word: (at: string) => string,
): string {
  const of = wide ? "vec4<f32>" : "f32";
  const minus = packedFormats[type].code;
  const number = typeof minus === "object" && minus.minus > 0 ? `(${of}(code) - ${minus.minus}.0)` : `${of}(code)`;
  const half = (at: number, i: string) => `unpack2x16float(${word(`${at}u + ${i} / 2u`)} >> (16u * (${i} % 2u))).x`;
  switch (type) {
    case "q4_0":
    case "q8_0":
      return `${number} * ${half(scales, "run")}`;
    case "q4_1":
      shader.line(`let pair = unpack2x16float(${word(`${scales}u + run`)});`);
      return `${number} * pair.x + pair.y`;
    case "q4_k":
      shader.line(`let bytes = ${word(`${scales}u + run / 2u`)} >> (16u * (run % 2u));`);
      shader.line(`let pair = unpack2x16float(${word(`${supers}u + run / 8u`)});`);
      return `${number} * (pair.x * f32(bytes & 255u)) - pair.y * f32((bytes >> 8u) & 255u)`;
    case "q6_k":
      shader.line(`let group = i / ${wide ? 4 : 16}u;\nlet block = run / 8u;`);
      shader.line(`let bytes = ${word(`${scales}u + group / 4u`)} << (24u - 8u * (group % 4u));`);
      return `${number} * (f32(bitcast<i32>(bytes) >> 24u) * ${half(supers, "block")})`;
    case "nf4": {
      const float = (at: string) => `bitcast<f32>(${word(at)})`;
      shader.line(`let byte = (${word(`${scales}u + run / 8u`)} >> (8u * (run / 2u % 4u))) & 255u;`);
      shader.line(
        `let scale = ${float(`${map}u + byte`)} * ${float(`${supers}u + run / 512u`)} + ${float(`${map + 256}u`)};`,
      );
      return `${lookup(shader, type, wide)} * scale`;
    }
    case "nf4_f32":
    case "fp4_f32":
      return `${lookup(shader, type, wide)} * bitcast<f32>(${word(`${scales}u + run / 2u`)})`;
  }
}

/** The value, or four, that the table of a type has for `code`. */
function lookup(shader: ShaderWriter, type: PackedType, wide: boolean): string {
  const name = type.slice(0, 3);
  const values = [...codeTables[type]!].map((x) => Number.isInteger(x) ? x.toFixed(1) : String(x));
  shader.declare(name, `\nvar<private> ${name}: array<f32, 16> = array<f32, 16>(\n  ${chunks(values)});`);
  return wide ? `vec4<f32>(${[..."xyzw"].map((lane) => `${name}[code.${lane}]`).join(", ")})` : `${name}[code]`;
}

/** Numbers on lines of three. */
function chunks(values: readonly string[]): string {
  return [0, 3, 6, 9, 12, 15].map((i) => values.slice(i, i + 3).join(", ")).join(",\n  ");
}
