import { assertEquals, assertRejects } from "@std/assert";
import { DeviceError } from "../../../core/errors.ts";
import { findAdapter, type FoundAdapter, requestDevice } from "./adapter.ts";

const enough = {
  maxBufferSize: 2 ** 31,
  maxStorageBufferBindingSize: 2 ** 30,
  maxStorageBuffersPerShaderStage: 10,
  maxComputeWorkgroupStorageSize: 32_768,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupSizeX: 1024,
};

/** An adapter with these limits, and what its device has and its request does. */
function adapterWith(
  limits: Partial<typeof enough>,
  give: (asked: GPUDeviceDescriptor) => unknown = (asked) => ({ limits: asked.requiredLimits, destroy: () => {} }),
): FoundAdapter {
  const adapter = {
    limits: { ...enough, ...limits },
    features: new Set(["timestamp-query", "shader-f16"]),
    requestDevice: (asked: GPUDeviceDescriptor) => Promise.resolve(asked).then(give),
  };
  return { adapter: adapter as unknown as GPUAdapter, name: "Toy GPU", software: false };
}

const refusal = async (found: FoundAdapter) => (await assertRejects(() => requestDevice(found), DeviceError)).message;

Deno.test("a device is asked for with all that its adapter has, and the features that are used", async () => {
  let asked: GPUDeviceDescriptor = {};
  await requestDevice(adapterWith({}, (descriptor) => {
    asked = descriptor;
    return { limits: enough };
  }));
  assertEquals(asked.requiredLimits, enough);
  assertEquals(asked.requiredFeatures, ["timestamp-query", "subgroups"]);
});

Deno.test("an adapter that refuses subgroups is asked again without", async () => {
  const device = await requestDevice(adapterWith({}, ({ requiredFeatures, requiredLimits }) => {
    if ([...requiredFeatures!].includes("subgroups" as GPUFeatureName)) throw new TypeError("no such feature");
    return { limits: requiredLimits, features: requiredFeatures };
  }));
  assertEquals([...device.features], ["timestamp-query"]);
});

Deno.test("an adapter with too little of a limit is refused by its name and the limit's", async () => {
  assertEquals(
    await refusal(adapterWith({ maxStorageBuffersPerShaderStage: 4 })),
    "The GPU adapter Toy GPU has a maxStorageBuffersPerShaderStage of 4, but kernels need 8: use --device cpu",
  );
  assertEquals(
    await refusal(adapterWith({ maxComputeInvocationsPerWorkgroup: undefined })),
    "The GPU adapter Toy GPU has a maxComputeInvocationsPerWorkgroup of undefined, but kernels need 256: " +
      "use --device cpu",
  );
});

Deno.test("a device that is not given, or has less than was promised, is reported", async () => {
  const broken = adapterWith({}, () => Promise.reject(new Error("it is busy")));
  assertEquals(await refusal(broken), "The GPU adapter Toy GPU gave no device (it is busy): use --device cpu");
  const less = adapterWith({}, () => ({ limits: { ...enough, maxBufferSize: 2 ** 28 }, destroy: () => {} }));
  assertEquals(
    await refusal(less),
    "The GPU adapter Toy GPU promised a maxBufferSize of 2147483648 and gave 268435456: use --device cpu",
  );
});

Deno.test("an adapter goes by what it says of itself, and one that computes on the CPU is known by that", async () => {
  const offering = (info: Partial<GPUAdapterInfo>) => ({
    requestAdapter: () => Promise.resolve({ info } as unknown as GPUAdapter),
  });
  const said: [Partial<GPUAdapterInfo>, string, boolean][] = [
    [{ description: "NVIDIA GeForce RTX 4070", vendor: "4318", device: "0" }, "NVIDIA GeForce RTX 4070", false],
    [{ vendor: "apple", architecture: "metal-3", device: "", description: "" }, "apple metal-3", false],
    [{ vendor: "google", architecture: "swiftshader" }, "google swiftshader", true],
    [{ vendor: "toy", isFallbackAdapter: true }, "toy", true],
    [{}, "unnamed adapter", false],
  ];
  for (const [info, name, software] of said) {
    const found = await findAdapter(offering(info));
    assertEquals("missing" in found ? found : [found.name, found.software], [name, software]);
  }
  assertEquals(await findAdapter(null), { missing: "this runtime has no navigator.gpu" });
  assertEquals(await findAdapter({ requestAdapter: () => Promise.resolve(null) }), {
    missing: "no WebGPU adapter was found",
  });
});
