import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DeviceError } from "../../core/errors.ts";
import { newInput, type Value } from "../../core/ir/graph.ts";
import { matmul } from "../../core/ops/contract.ts";
import { tanh } from "../../core/ops/elementwise.ts";
import { upload } from "../../core/tensor.ts";
import { openCpu } from "../device/cpu/cpu.ts";
import { openWebGpu } from "../device/webgpu/webgpu.ts";
import { findAdapter } from "../device/webgpu/adapter.ts";
import { explain } from "./explain.ts";
import { profile } from "../runtime/profile.ts";

/** Three equal layers: one kernel, launched three times, and one of another kind. */
const layers = (x: Value, w: Value) => matmul(tanh(matmul(matmul(matmul(x, w), w), w)), matmul(w, w));
const [x, w] = [16, 32].map((rows) => newInput({ shape: [rows, 32], dtype: "f32" }));

Deno.test("a summary has a line for each kernel, however often it is launched, and one for all", () => {
  const page = explain(layers, { brief: true })(x, w);
  const [head, , ...lines] = page.trimEnd().split("\n");
  assertMatch(head, /^5 dispatches of 3 kernels, /);
  const table = lines.slice(0, lines.indexOf("")).map((line) => line.trim().split(/\s{2,}/));
  assertEquals(table[0], ["step", "x", "kernel", "tile", "MFLOP", "MB"]);
  assertEquals(table.length, 1 + 3 + 1);
  assertEquals(table.find(([, count]) => count === "3")?.[2], "contract 16 x 32, k 32");
  assertEquals(table.at(-1)![0], "all");
  assert(!page.includes("fn main"), "no WGSL");
});

Deno.test("what two kernels share is printed once, with a reference", () => {
  const page = explain(layers)(x, w);
  assert(page.startsWith(explain(layers, { brief: true })(x, w)), "the summary comes first");
  const texts = page.split(/^step (?=\d)/m).slice(1);
  assertEquals(texts.length, 3);
  assertMatch(page, /^\/\/ as in step 0: .*multiply/m);
  const functions = [...page.matchAll(/^fn [^]*?^}/gm)].map(([text]) => text);
  assertEquals(functions.length, new Set(functions).size, "no function twice");
});

Deno.test("a profile has the time of each kernel and its share, on a device with a clock", async () => {
  using cpu = await openCpu();
  const here = upload(cpu, { shape: [16, 32], dtype: "f32", data: new Float32Array(512) });
  const { message } = await assertRejects(() => profile((x: Value) => tanh(x))(here), DeviceError);
  assertMatch(message, /^cpu .* does not time kernels: profile on a device that has timestamp queries$/);
  await assertRejects(() => profile((x: Value) => tanh(x))(x), DeviceError, "upload every argument");

  const found = await findAdapter();
  if ("missing" in found) return console.log(`  skipped: ${found.missing}`);
  if (!found.adapter.features.has("timestamp-query")) return console.log("  skipped: this adapter has no clock");
  using gpu = await openWebGpu({ tune: false });
  const [a, b] = [16, 32].map((rows) =>
    upload(gpu, { shape: [rows, 32], dtype: "f32", data: new Float32Array(rows * 32) })
  );
  const held = gpu.memory.current;
  const page = await profile(layers)(a, b);
  assertEquals(gpu.memory.current, held, "all that was made for it is freed");
  const shares = [...page.matchAll(/ (\d+\.\d{3}) +(\d+\.\d) +[\d.,]*$/gm)].map(([, ms, share]) => [+ms, +share]);
  assertEquals(shares.length, 3 + 1);
  const all = shares.pop()!;
  assert(all[0] > 0 && all[1] === 100);
  const sum = shares.reduce((sum, [ms]) => sum + ms, 0);
  assert(Math.abs(sum - all[0]) <= 0.0005 * 4, `${sum} is ${all[0]}, each rounded to a microsecond`);
});
