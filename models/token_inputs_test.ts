import { assertEquals, assertThrows } from "@std/assert";
import { DataError, ShapeError } from "../core/errors.ts";
import { newInput, type Value } from "../core/ir/graph.ts";
import type { TokenInputs } from "../core/model.ts";
import { type OracleTensor, oracleTensor, runOracle } from "../testing/oracle.ts";
import { defaultPositions, readTokenInputs } from "./token_inputs.ts";

const sizes = { vocabSize: 9, contextLength: 6 };
const ints = (...shape: number[]) => newInput({ shape, dtype: "i32" });

Deno.test("each input is named when it does not fit the ids", () => {
  const refused = (inputs: Omit<TokenInputs, "inputIds">, sentence: string) =>
    assertThrows(() => readTokenInputs({ inputIds: ints(2, 4), ...inputs }, sizes), ShapeError, sentence);
  refused({ attentionMask: ints(2, 3) }, "attentionMask is i32[2,4] beside these token ids, not i32[2,3]");
  refused({ documentStart: ints(4) }, "documentStart is i32[2,4] beside these token ids, not i32[4]");
  refused({ documentStart: ints(1, 4) }, "documentStart is i32[2,4]");
  refused({ positionIds: newInput({ shape: [2, 4], dtype: "f32" }) }, "positionIds is i32[2,4]");
  refused({ tokenTypeIds: ints(4, 2) }, "tokenTypeIds is i32[2,4]");
  assertEquals(readTokenInputs({ inputIds: ints(2, 4), positionIds: ints(1, 4) }, sizes).positionIds?.shape, [1, 4]);
  assertThrows(
    () => readTokenInputs({ inputIds: ints(4) }, sizes),
    ShapeError,
    "reads token ids as i32[B,T], not i32[4]",
  );
  assertThrows(() => readTokenInputs({ inputIds: ints(1, 7) }, sizes), DataError, "the model's context is 6");
});

Deno.test("positions count from the first real token, or from the start of each document", () => {
  const positions = (rows: number[][] | null, name: "mask" | "documentStart") => {
    const ids = ints(2, 4);
    const f = (given: Value) => defaultPositions({ ids, [name]: given });
    if (rows === null) return runOracle(() => defaultPositions({ ids }));
    return [...(runOracle(f, oracleTensor([2, 4], rows.flat(), "i32")) as OracleTensor).data];
  };
  assertEquals([...(positions(null, "mask") as OracleTensor).data], [0, 1, 2, 3]);
  assertEquals(positions([[0, 0, 1, 1], [1, 1, 0, 0]], "mask"), [0, 0, 0, 1, 0, 1, 2, 3]);
  assertEquals(positions([[0, 0, 2, 2], [0, 1, 1, 3]], "documentStart"), [0, 1, 0, 1, 0, 0, 1, 0]);
});
