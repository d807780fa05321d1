/** threefry2x32 with 20 rounds on four lanes (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). */
import type { Code, Local } from "./assembler.ts";

const rotations = [[13, 15, 26, 6], [17, 29, 16, 24]];

/** With key 0, key 1, counter 0 and counter 1 on the stack: two locals that hold the output words. */
export function emitThreefry(code: Code): [Local, Local] {
  const [key0, key1, key2, x0, x1] = Array.from({ length: 5 }, () => code.local("v128"));
  const keys = [key0, key1, key2];
  code.set(x1).set(x0).set(key1).set(key0);
  code.get(key0).get(key1).op("v128.xor").i32x4(0x1bd11bda, 0x1bd11bda, 0x1bd11bda, 0x1bd11bda).op("v128.xor").set(
    key2,
  );
  code.get(x0).get(key0).op("i32x4.add").set(x0).get(x1).get(key1).op("i32x4.add").set(x1);
  for (let group = 0; group < 5; group++) {
    for (const r of rotations[group % 2]) {
      code.get(x0).get(x1).op("i32x4.add").set(x0);
      code.get(x1).i32(r).op("i32x4.shl").get(x1).i32(32 - r).op("i32x4.shr_u", "v128.or").get(x0).op("v128.xor").set(
        x1,
      );
    }
    const round = group + 1;
    code.get(x0).get(keys[round % 3]).op("i32x4.add").set(x0);
    code.get(x1).get(keys[(round + 1) % 3]).op("i32x4.add").i32x4(round, round, round, round).op("i32x4.add").set(x1);
  }
  code.release("v128", key0, key1, key2);
  return [x0, x1];
}
