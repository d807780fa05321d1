/** The meaning of an attention kernel, by plain loops in f64. */
import {
  type AttentionKernel,
  type AttentionOperand,
  attentionOperands,
  type HeadLayout,
} from "../kernels/ir/kernel.ts";
import type { Cells } from "./cells.ts";

/** Runs one attention kernel; `memory[i]` is operand i. */
export function interpretAttention(kernel: AttentionKernel, memory: readonly Cells[]): void {
  const { batch, heads, kvHeads, queries, keys, width, scale, cap, causal, bounded, layouts } = kernel;
  const at = (layout: HeadLayout, b: number, t: number, h: number) =>
    layout.offset + b * layout.batch + t * layout.token + h * layout.head;
  const names = attentionOperands(kernel);
  const cells = (name: AttentionOperand) => memory[names.indexOf(name)];
  const layoutOf = (name: AttentionOperand) => layouts[names.indexOf(name)]!;
  const [q, k, v, mask, offset, first] = (["q", "k", "v", "mask", "offset", "first"] as const).map(cells);
  const [qAt, kAt, vAt] = [layoutOf("q"), layoutOf("k"), layoutOf("v")];
  const start = (name: AttentionOperand) => kernel.starts?.[name] ?? 0;
  const row = (cells: Cells, start: number) => Array.from({ length: width }, (_, d) => cells.get(start + d));
  const inner = (x: readonly number[], y: readonly number[]) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const last = kernel.offset ?? offset.get(start("offset"));
  const visible = (b: number, i: number, j: number) =>
    mask.get(start("mask") + b * keys + j) !== 0 && (!causal || j <= last + i) &&
    (!bounded || j >= first.get(start("first") + b * queries + i));
  const group = heads / kvHeads;

  for (let b = 0; b < batch; b++) {
    for (let g = 0; g < kvHeads; g++) {
      const kRows = Array.from({ length: keys }, (_, j) => row(k, at(kAt, b, j, g)));
      const vRows = Array.from({ length: keys }, (_, j) => row(v, at(vAt, b, j, g)));
      const dk = kRows.map(() => new Float64Array(width));
      const dv = kRows.map(() => new Float64Array(width));
      for (let h = g * group; h < (g + 1) * group; h++) {
        for (let i = 0; i < queries; i++) {
          const qRow = row(q, at(qAt, b, i, h));
          const scaled = kRows.map((kRow, j) => visible(b, i, j) ? scale * inner(qRow, kRow) : -Infinity);
          const scores = scaled.map((s) => cap === undefined || s === -Infinity ? s : cap * Math.tanh(s / cap));
          const stat = (b * heads + h) * queries + i;
          if (kernel.pass === "forward") {
            const most = Math.max(...scores);
            const weights = scores.map((s) => s === -Infinity ? 0 : Math.exp(s - most));
            const total = weights.reduce((x, y) => x + y, 0);
            for (let d = 0; d < width; d++) {
              const sum = weights.reduce((x, w, j) => x + w * vRows[j][d], 0);
              cells("out").set(at(layoutOf("out"), b, i, h) + d, total > 0 ? sum / total : 0);
            }
            cells("lse").set(stat, total > 0 ? most + Math.log(total) : 0);
            continue;
          }
          const dout = row(cells("dout"), at(layoutOf("dout"), b, i, h));
          const lse = cells("lse").get(stat), delta = cells("delta").get(stat);
          const dq = new Float64Array(width);
          scores.forEach((s, j) => {
            if (s === -Infinity) return;
            const p = Math.exp(s - lse);
            const slope = cap === undefined ? 1 : 1 - (s / cap) ** 2;
            const ds = p * (inner(dout, vRows[j]) - delta) * scale * slope;
            for (let d = 0; d < width; d++) {
              dq[d] += ds * kRows[j][d];
              dk[j][d] += ds * qRow[d];
              dv[j][d] += p * dout[d];
            }
          });
          if (kernel.pass === "backward-q") {
            dq.forEach((x, d) => cells("dq").set(at(layoutOf("dq"), b, i, h) + d, x));
          }
        }
      }
      if (kernel.pass === "backward-kv") {
        for (let j = 0; j < keys; j++) {
          dk[j].forEach((x, d) => cells("dk").set(at(layoutOf("dk"), b, j, g) + d, x));
          dv[j].forEach((x, d) => cells("dv").set(at(layoutOf("dv"), b, j, g) + d, x));
        }
      }
    }
  }
}
