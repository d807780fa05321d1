/** One kernel for each class that is worth tuning: of a size that stands for what models have. */
import type { Expr } from "../ir/expr.ts";
import type { AttentionKernel, ContractKernel, Kernel, Operand, Program, RowKernel } from "../ir/kernel.ts";
import { shapeClass } from "../wgsl/tile_table.ts";

const f32 = (size: number, access: Operand["access"] = "read"): Operand => ({ dtype: "f32", size, access });

/** y = a·b, where `form` says whether a lies along k and b along n (N), or across (T). */
function product(form: string, m: number, k: number, n: number): ContractKernel {
  const [a, b] = [form[0] === "N" ? [k, 1] : [1, m], form[1] === "N" ? [n, 1] : [1, k]];
  return {
    kind: "contract",
    operands: [f32(m * k), f32(k * n), f32(m * n, "write")],
    batch: [],
    m,
    n,
    segments: [{
      k,
      a: { operand: 0, index: { offset: 0, strides: a } },
      b: { operand: 1, index: { offset: 0, strides: b } },
    }],
    stores: [{ operand: 2, index: { offset: 0, strides: [n, 1] }, value: { kind: "result", type: "f32", phase: 0 } }],
  };
}

/** A softmax without the division: the greatest of a row, the sum of the exponentials, and these. */
function softmaxRows(rows: number, cols: number): RowKernel {
  const index = { offset: 0, strides: [cols, 1] };
  const x: Expr = { kind: "load", type: "f32", operand: 0, index };
  const op = (name: "sub" | "exp" | "div", ...args: Expr[]): Expr => ({ kind: "op", type: "f32", op: name, args });
  const result = (phase: number): Expr => ({ kind: "result", type: "f32", phase });
  const weight = op("exp", op("sub", x, result(0)));
  return {
    kind: "row",
    operands: [f32(rows * cols), f32(rows * cols, "write")],
    rows: [rows],
    cols,
    phases: [
      { kind: "reduce", op: "max", value: x },
      { kind: "reduce", op: "sum", value: weight },
      { kind: "each", stores: [{ operand: 1, index, value: op("div", weight, result(1)) }] },
    ],
  };
}

function attention(pass: AttentionKernel["pass"]): AttentionKernel {
  const [batch, tokens, heads, width] = [2, 256, 8, 64];
  const size = batch * tokens * heads * width;
  const statistic = batch * heads * tokens;
  const layout = { offset: 0, batch: tokens * heads * width, token: heads * width, head: width };
  const operands = [
    f32(size),
    f32(size),
    f32(size),
    { dtype: "bool", size: batch * tokens, access: "read" },
  ] as Operand[];
  const own: Record<AttentionKernel["pass"], Operand[]> = {
    "forward": [f32(size, "write"), f32(statistic, "write")],
    "backward-q": [f32(size), f32(statistic), f32(statistic), f32(size, "write")],
    "backward-kv": [f32(size), f32(statistic), f32(statistic), f32(size, "write"), f32(size, "write")],
  };
  operands.push(...own[pass]);
  const layouts = operands.map((operand) => operand.size === size ? layout : null);
  const shape = { batch, heads, kvHeads: heads, queries: tokens, keys: tokens, width };
  return {
    kind: "attention",
    operands,
    layouts,
    pass,
    ...shape,
    scale: 0.125,
    causal: true,
    bounded: false,
    offset: 0,
  };
}

/** The classes that are tuned, each with the program of its one kernel, whose arguments are the operands. */
export function representatives(): { readonly shapeClass: string; readonly program: Program }[] {
  const forms = ["NN", "NT", "TN"];
  const kernels: Kernel[] = [
    ...forms.map((form) => product(form, 256, 768, 256)),
    ...forms.map((form) => product(form, 512, 768, 768)),
    ...forms.map((form) => product(form, 2048, 1024, 2048)),
    ...forms.map((form) => product(form, 1024, 1024, 16)),
    ...["NN", "NT"].map((form) => product(form, 1, 2048, 2048)),
    softmaxRows(4096, 256),
    softmaxRows(256, 8192),
    ...(["forward", "backward-q", "backward-kv"] as const).map(attention),
  ];
  return kernels.map((kernel) => ({
    shapeClass: shapeClass(kernel),
    program: {
      arguments: kernel.operands,
      outputs: [],
      arenaBytes: 0,
      steps: [{ kernel, buffers: kernel.operands.map((_, index) => ({ kind: "argument" as const, index })) }],
    },
  }));
}
