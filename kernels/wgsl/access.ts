import { arithmeticType } from "../../core/dtype.ts";
import { isPacked } from "../../core/packed/blocks.ts";
import { type Index, variesAlong } from "../ir/expr.ts";
import { packedReader } from "./packed.ts";
import type { Term } from "./scalar.ts";
import type { ShaderWriter } from "./shader.ts";

/** Whether an access can go through a wide binding: four whole neighbours along `vector` at a multiple of four. */
export function isWide(index: Index, vector: number): boolean {
  return index.offset % 4 === 0 &&
    index.strides[vector] === 1 &&
    index.strides.every((stride, i) => i === vector || stride % 4 === 0) &&
    (index.dynamic ?? []).every(({ value, stride }) => stride % 4 === 0 && !variesAlong(value, vector));
}

/** The four elements at `at`, counted in steps of four, of an operand whose binding is wide. */
export function readWide(shader: ShaderWriter, operand: number, at: string): Term {
  const { dtype } = shader.operands[operand];
  const { dtype: declared } = shader.binding(operand);
  const type = arithmeticType[dtype];
  if (isPacked(dtype)) return { text: `${packedReader(shader, operand)}(${at})`, type, width: 4, atom: true };
  let text = shader.read(operand, at);
  if (dtype === "f16") text = `${shader.helpers.use("halves")}(${text})`;
  else if (dtype === "bf16") text = `${shader.helpers.use("brains")}(${text})`;
  else text = reread(text, declared, dtype, 4);
  if (dtype === "bool") return { text: `${text} != vec4<u32>()`, type, width: 4, atom: false };
  return { text, type, width: 4, atom: true };
}

/** The element at `at` of an operand whose binding is narrow; for 16-bit elements `at` is a name. */
export function readElement(shader: ShaderWriter, operand: number, at: string): Term {
  const { dtype } = shader.operands[operand];
  const { dtype: declared } = shader.binding(operand);
  const type = arithmeticType[dtype];
  if (isPacked(dtype)) return { text: `${packedReader(shader, operand)}(${at})`, type, width: 1, atom: true };
  if (dtype === "f16" || dtype === "bf16") {
    const helper = shader.helpers.use(dtype === "f16" ? "half" : "brain");
    return { text: `${helper}(${shader.read(operand, `${at} / 2u`)}, ${at})`, type, width: 1, atom: true };
  }
  const text = reread(shader.read(operand, at), declared, dtype, 1);
  if (dtype === "bool") return { text: `${text} != 0u`, type, width: 1, atom: false };
  return { text, type, width: 1, atom: true };
}

/** Whether an operand's elements are half a word. */
export function isHalfWord(shader: ShaderWriter, operand: number): boolean {
  const { dtype } = shader.operands[operand];
  return dtype === "f16" || dtype === "bf16";
}

/** Reads words of dtype `from` as dtype `to`, both of 32 bits. */
export function reread(text: string, from: string, to: string, width: 1 | 4): string {
  const word = (dtype: string) => dtype === "bool" ? "u32" : dtype;
  if (word(from) === word(to)) return text;
  return `bitcast<${width === 4 ? `vec4<${word(to)}>` : word(to)}>(${text})`;
}
