/**
 * What a kernel computes, without loops, targets or addresses: the contract between `lower.ts`, which makes these,
 * and the emitters, which turn each into WGSL text or WebAssembly bytes. Equal printed kernels compile once.
 */
import type { DType } from "../../core/dtype.ts";
import type { Access, Expr, Store } from "./expr.ts";

export type { ScalarOp } from "../../core/ops/elementwise.ts";

/** Storage buffers that one kernel may bind: WebGPU guarantees 8 a stage. */
export const maxOperands = 8;

/** Operations that are gathered into one kernel: what is made of expressions may walk them by recursion. */
export const maxFused = 128;

/** A buffer a kernel is given. `size` is in elements. An `inout` operand is read and written by the same index only. */
export interface Operand {
  readonly dtype: DType;
  readonly size: number;
  readonly access: "read" | "write" | "inout";
}

/** One independent evaluation of the stores per point of `shape`. */
export interface MapKernel {
  readonly kind: "map";
  readonly operands: readonly Operand[];
  readonly shape: readonly number[];
  readonly stores: readonly Store[];
}

/** A phase of a row kernel: a reduction along the row, stores at every column, or stores once for the row. */
export type Phase<O = number> =
  | { readonly kind: "reduce"; readonly op: "sum" | "max" | "min" | "argmax"; readonly value: Expr<O> }
  | { readonly kind: "each"; readonly stores: readonly Store<O>[] }
  | { readonly kind: "once"; readonly stores: readonly Store<O>[] };

/**
 * Rows of `cols` elements, one independent run of the phases per row; the iteration axes are [...rows, cols]. `result`
 * expressions name a reduce phase by its position in `phases`. An argmax gives the i32 column of the first greatest.
 */
export interface RowKernel {
  readonly kind: "row";
  readonly operands: readonly Operand[];
  readonly rows: readonly number[];
  readonly cols: number;
  readonly phases: readonly Phase[];
}

/** A product Σₖ a[..,m,k]·b[..,k,n]: indices over [...batch, m, k] and [...batch, k, n]; a stride of 0 repeats an operand. */
export interface Segment {
  readonly k: number;
  readonly a: Access;
  readonly b: Access;
  /**
   * Rows of a are rounded to bytes in blocks of 32 along k, as `roundToBytes` of `core/transforms/round_activations.ts`
   * defines; b is packed. Only for devices that say they take it (`Device.roundedRows`).
   */
  readonly rounded?: boolean;
}

/**
 * Matrix products summed in one accumulator: segment 0 is the wide product, further ones (a low-rank pair) continue its K
 * loop. The stores run over [...batch, m, n] and read the f32 accumulator as `result` 0.
 */
export interface ContractKernel {
  readonly kind: "contract";
  readonly operands: readonly Operand[];
  readonly batch: readonly number[];
  readonly m: number;
  readonly n: number;
  readonly segments: readonly Segment[];
  readonly stores: readonly Store[];
}

/**
 * out[t, c] = Σ over i with indices[i] = t of updates[i, c], in increasing i: the same bits every run. Operands are
 * [indices i32[count], updates f32[count, cols], out f32[targets, cols]]; indices outside [0, targets) are dropped.
 */
export interface ScatterKernel {
  readonly kind: "scatter";
  readonly operands: readonly Operand[];
  readonly count: number;
  readonly cols: number;
  readonly targets: number;
}

/** How a [batch, token, head, width] operand of attention lies in memory; the width is contiguous. Strides in elements. */
export interface HeadLayout {
  readonly offset: number;
  readonly batch: number;
  readonly token: number;
  readonly head: number;
}

/**
 * Attention as one kernel, without a queries x keys tensor. Scores are s[i,j] = scale·q[i]·k[j], or cap·tanh(s[i,j]/cap)
 * where there is a cap, where key j is visible to query i, that is mask[batch, j] != 0 and (not causal or j <= offset + i) and (not bounded or j >= first[batch, i]); other
 * pairs weigh 0, and a query that sees no key gives zeros (lse 0). Query head h reads key/value head
 * floor(h / (heads / kvHeads)). Operands, in the order of {@link attentionOperands}:
 * - all passes read q, k, v, mask bool[batch,keys], offset i32[1] unless it is a known number, and, where `bounded`,
 *   first i32[batch,queries]
 * - forward: out, lse f32[batch,heads,queries] (log-sum-exp of each row)
 * - backward-q: dout, lse, delta f32[batch,heads,queries] (Σ dout·out); dq
 * - backward-kv: dout, lse, delta; dk, dv
 * `layouts` has one entry per operand of rank 4, null for the others.
 */
export interface AttentionKernel {
  readonly kind: "attention";
  readonly operands: readonly Operand[];
  readonly layouts: readonly (HeadLayout | null)[];
  readonly pass: "forward" | "backward-q" | "backward-kv";
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly queries: number;
  readonly keys: number;
  readonly width: number;
  readonly scale: number;
  /** Scores are cap·tanh(s/cap) where there is a bound. */
  readonly cap?: number;
  readonly causal: boolean;
  readonly bounded: boolean;
  /** The place of the first query among the keys where it is known, as in training; null where it is an operand. */
  readonly offset: number | null;
  /** Where mask, offset and first begin, in elements, if they lie one behind the other in one buffer of words. */
  readonly starts?: Readonly<Partial<Record<AttentionOperand, number>>>;
}

const sharedOperands = ["q", "k", "v", "mask"] as const;
const ownOperands = {
  "forward": ["out", "lse"],
  "backward-q": ["dout", "lse", "delta", "dq"],
  "backward-kv": ["dout", "lse", "delta", "dk", "dv"],
} as const;

/** What an operand of an attention kernel is. */
export type AttentionOperand =
  | typeof sharedOperands[number]
  | "offset"
  | "first"
  | typeof ownOperands[keyof typeof ownOperands][number];

/** The names of an attention kernel's operands, in order. */
export function attentionOperands(
  { pass, bounded, offset }: Pick<AttentionKernel, "pass" | "bounded" | "offset">,
): AttentionOperand[] {
  const given: AttentionOperand[] = [
    ...(offset === null ? ["offset" as const] : []),
    ...(bounded ? ["first" as const] : []),
  ];
  return [...sharedOperands, ...given, ...ownOperands[pass]];
}

/** The closed union that every back end implements. */
export type Kernel = MapKernel | RowKernel | ContractKernel | ScatterKernel | AttentionKernel;
export type KernelKind = Kernel["kind"];
export type KernelOf<K extends KernelKind> = Extract<Kernel, { readonly kind: K }>;

/** Where a step's operand lives: a slice of the program's arena, or one of the program's arguments or outputs. */
export type BufferRef =
  | { readonly kind: "arena"; readonly offset: number }
  | { readonly kind: "argument"; readonly index: number }
  | { readonly kind: "output"; readonly index: number };

/** One kernel launch; `buffers[i]` is operand i. Steps run in order. */
export interface Step {
  readonly kernel: Kernel;
  readonly buffers: readonly BufferRef[];
}

/** A planned computation. Arena offsets are multiples of 256 bytes. */
export interface Program {
  readonly arguments: readonly { readonly dtype: DType; readonly size: number }[];
  /** An output that is `donated` from argument i reuses that argument's buffer. */
  readonly outputs: readonly { readonly dtype: DType; readonly size: number; readonly donated?: number }[];
  readonly arenaBytes: number;
  readonly steps: readonly Step[];
}
