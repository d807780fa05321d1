import { assert, assertEquals, assertRejects } from "@std/assert";
import { DeviceError, OptionError } from "../../core/errors.ts";
import { openDevice } from "./open.ts";
import { findAdapter } from "./webgpu/adapter.ts";

Deno.test("auto takes the CPU unless there is a real GPU, and says why", async () => {
  const found = await findAdapter();
  using device = await openDevice("auto", { threads: 1 });
  const real = !("missing" in found) && !found.software;
  assert(device.description.startsWith(real ? "webgpu" : "cpu"));
  if ("missing" in found) assertEquals(device.reason, found.missing);
  else if (!real) assert(/^no GPU adapter but a software one \(.+\)$/.test(device.reason), device.reason);
});

Deno.test("an adapter by a software rasteriser's name or by its own word is no GPU", async () => {
  const adapter = (info: Partial<GPUAdapterInfo>) => ({ info: { vendor: "", device: "", description: "", ...info } });
  const found = async (info: Partial<GPUAdapterInfo>) => {
    const result = await findAdapter({ requestAdapter: () => Promise.resolve(adapter(info) as GPUAdapter) });
    return "software" in result && result.software;
  };
  assertEquals(await found({ description: "llvmpipe (LLVM 15.0.6, 256 bits)" }), true);
  assertEquals(await found({ description: "SwiftShader Device (LLVM 10.0.0)" }), true);
  assertEquals(await found({ description: "Microsoft Basic Render Driver" }), true);
  assertEquals(await found({ description: "Some CPU", isFallbackAdapter: true }), true);
  assertEquals(await found({ description: "NVIDIA GeForce RTX 4070" }), false);
});

Deno.test("no adapter and no navigator.gpu are different errors", async () => {
  const none = await findAdapter({ requestAdapter: () => Promise.resolve(null) });
  assertEquals(none, { missing: "no WebGPU adapter was found" });
  assertEquals(await findAdapter(null), { missing: "this runtime has no navigator.gpu" });
});

Deno.test("an unknown device is refused by name", async () => {
  const error = await assertRejects(() => openDevice("cuda" as "cpu"), OptionError);
  assertEquals(error.message, "There is no device cuda: choose one of auto, cpu, webgpu");
});

Deno.test("webgpu without an adapter is a DeviceError with the remedy", async () => {
  const found = await findAdapter();
  if (!("missing" in found)) return;
  const error = await assertRejects(() => openDevice("webgpu"), DeviceError);
  assert(error.message.includes("--device cpu"));
});
