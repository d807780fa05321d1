/** What the engine's WebAssembly can do. */
import { assembleModule, Code } from "./assembler.ts";

/** Whether the engine takes relaxed SIMD's multiply-add and rounds it once. */
export function supportsRelaxedSimd(): boolean {
  const code = new Code([], ["i32"]);
  // (1 + 2^-12)² - (1 + 2^-11) is 2^-24 when rounded once, 0 when the product is rounded first.
  code.f32x4(1 + 2 ** -12).f32x4(1 + 2 ** -12).f32x4(-(1 + 2 ** -11)).op("f32x4.relaxed_madd").op("v128.any_true");
  const bytes = assembleModule([code], { shared: false });
  if (!WebAssembly.validate(bytes)) return false;
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: memory } });
  return (instance.exports.run as () => number)() !== 0;
}
