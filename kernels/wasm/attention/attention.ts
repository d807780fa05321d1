/**
 * Attention, a block of queries (or of keys, for their gradients) at a time: the block's scores against every row that it
 * can see are held in the thread's scratch, made into weights there, and multiplied on. No other intermediate exists.
 */
import type { AttentionKernel } from "../../ir/kernel.ts";
import type { Local } from "../assembler.ts";
import { AttentionBlocks } from "./blocks.ts";
import type { EmittedKernel, KernelFrame } from "../frame.ts";

export function emitAttention(frame: KernelFrame<"attention">): EmittedKernel {
  const blocks = new AttentionBlocks(frame);
  passes[frame.kernel.pass](blocks, frame.kernel);
  return blocks.finish();
}

const passes = { "forward": emitForward, "backward-q": emitBackwardQueries, "backward-kv": emitBackwardKeys };

function emitForward(blocks: AttentionBlocks, kernel: AttentionKernel): void {
  const { code, math, ranges } = blocks;
  const scores = blocks.scores(), sums = blocks.sums();
  blocks.eachBlock(kernel.heads, (b, h, first, last) => {
    const g = blocks.keyHead(h), { begin, count } = ranges.keyRange(b, first, last);
    blocks.products(blocks.row("q", b, first, h), "q", first, last, blocks.row("k", b, begin, g), "k", count, scores);
    const total = code.local("v128"), most = code.local("v128"), seen = code.local("v128"), x = code.local("v128");
    const factors = blocks.factors();
    blocks.eachRow(first, last, scores, (i, row, position) => {
      const visibleRange = ranges.visibleRange(b, i);
      code.f32x4(-Infinity).set(most);
      blocks.eachLane(count, row, (at, c) => {
        const bent = blocks.pushScores(at);
        if (bent !== null) code.release("v128", bent);
        code.f32x4(-Infinity);
        ranges.pushVisible(b, begin, c, visibleRange);
        code.op("v128.bitselect").tee(x).get(most).op("f32x4.max").set(most).get(at).get(x).memory("v128.store");
      });
      blocks.acrossLanes(most, "f32x4.max");
      // A row that sees nothing keeps weights of 0: exp(-infinity - 0).
      code.get(most).f32x4(0).get(most).f32x4(-Infinity).op("f32x4.ne").tee(seen).op("v128.bitselect").set(most);
      code.f32x4(0).set(total);
      blocks.eachLane(count, row, (at) => {
        code.get(at).memory("v128.load").get(most).op("f32x4.sub");
        math.exp();
        code.tee(x).get(total).op("f32x4.add").set(total).get(at).get(x).memory("v128.store");
      });
      blocks.acrossLanes(total, "f32x4.add");
      code.get(position).f32x4(1).get(total).op("f32x4.div").get(seen).op("v128.and");
      code.laneMemory("v128.store32_lane", 0, 0);
      code.get(blocks.statistic("lse", b, h, i)).get(total);
      math.log();
      code.get(most).op("f32x4.add").get(seen).op("v128.and").laneMemory("v128.store32_lane", 0);
    }, factors);
    blocks.combine(scores, first, last, count, blocks.row("v", b, begin, g), "v", sums, null);
    blocks.writeRows(sums, "out", b, first, last, h, factors);
  });
}

function emitBackwardQueries(blocks: AttentionBlocks, kernel: AttentionKernel): void {
  const { code, ranges } = blocks;
  const scores = blocks.scores(), slopes = blocks.scores(), sums = blocks.sums();
  blocks.eachBlock(kernel.heads, (b, h, first, last) => {
    const g = blocks.keyHead(h), { begin, count } = ranges.keyRange(b, first, last);
    const keys = blocks.row("k", b, begin, g), values = blocks.row("v", b, begin, g);
    blocks.products(blocks.row("q", b, first, h), "q", first, last, keys, "k", count, scores);
    blocks.products(blocks.row("dout", b, first, h), "dout", first, last, values, "v", count, slopes);
    const level = code.local("v128"), mean = code.local("v128");
    blocks.eachRow(first, last, scores, (i, row, position) => {
      const visibleRange = ranges.visibleRange(b, i);
      code.get(blocks.statistic("lse", b, h, i)).memory("v128.load32_splat").set(level);
      code.get(blocks.statistic("delta", b, h, i)).memory("v128.load32_splat").set(mean);
      blocks.eachLane(count, row, (at, c) => {
        const slope = blocks.sameCell(position, c);
        code.get(slope);
        const bent = blocks.pushWeight(at, () => code.get(level), () => ranges.pushVisible(b, begin, c, visibleRange));
        blocks.pushScoreGradient(slope, () => code.get(mean), bent);
        code.memory("v128.store");
      });
    }, slopes);
    blocks.combine(slopes, first, last, count, keys, "k", sums, null);
    blocks.writeRows(sums, "dq", b, first, last, h, null);
  });
}

function emitBackwardKeys(blocks: AttentionBlocks, kernel: AttentionKernel): void {
  const { heads, kvHeads } = kernel;
  const { code, ranges } = blocks;
  const weights = blocks.scores(), slopes = blocks.scores(), sumsK = blocks.sums(), sumsV = blocks.sums();
  blocks.eachBlock(kvHeads, (b, g, first, last) => {
    const keys = blocks.row("k", b, first, g), valuesAt = blocks.row("v", b, first, g);
    // The first query that sees the block's first key, and how many there are to the last that sees its last.
    const start = ranges.firstQuery(first), count = ranges.visibleQueryCount(b, start, last);
    const h = code.local("i32"), member = code.local("i32");
    code.i32(0).set(member);
    code.loopUpTo(member, { constant: heads / kvHeads }, 1, () => {
      code.get(g).i32(heads / kvHeads).op("i32.mul").get(member).op("i32.add").set(h);
      const queriesAt = blocks.row("q", b, start, h), gradients = blocks.row("dout", b, start, h);
      blocks.products(keys, "k", first, last, queriesAt, "q", count, weights);
      blocks.products(valuesAt, "v", first, last, gradients, "dout", count, slopes);
      const bounds = kernel.bounded ? ranges.firstKeyAddress(b, start) : null;
      const levels = blocks.statistic("lse", b, h, start), means = blocks.statistic("delta", b, h, start);
      blocks.eachRow(first, last, weights, (j, row, position) => {
        const from = ranges.queryOffset(j, start), shown = ranges.maskOf(b, j);
        blocks.eachLane(count, row, (at, c) => {
          const slope = blocks.sameCell(position, c), weight = code.local("v128");
          const lane = (base: Local) => () => code.get(base).get(c).i32(4).op("i32.mul", "i32.add").memory("v128.load");
          const bent = blocks.pushWeight(at, lane(levels), () => {
            code.get(c).op("i32x4.splat").i32x4(0, 1, 2, 3).op("i32x4.add");
            code.get(from).op("i32x4.splat", "i32x4.ge_s").get(shown).op("v128.and");
            if (bounds !== null) {
              ranges.pushVisibleQueries(bounds, c, j);
              code.op("v128.and");
            }
          });
          code.set(weight).get(at).get(weight).memory("v128.store").get(slope).get(weight);
          blocks.pushScoreGradient(slope, lane(means), bent);
          code.memory("v128.store");
          code.release("v128", weight);
        });
      }, slopes);
      blocks.combine(weights, first, last, count, gradients, "dout", sumsV, member);
      blocks.combine(slopes, first, last, count, queriesAt, "q", sumsK, member);
    });
    blocks.writeRows(sumsK, "dk", b, first, last, g, null);
    blocks.writeRows(sumsV, "dv", b, first, last, g, null);
  });
}
