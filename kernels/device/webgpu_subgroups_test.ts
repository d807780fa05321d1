import { assertEquals } from "@std/assert";
import { findSubgroups } from "./webgpu_subgroups.ts";

Deno.test("subgroups whose size the driver picks for each shader are none to count on", async () => {
  const gpu = { features: new Set(["subgroups"]), adapterInfo: { subgroupMinSize: 8, subgroupMaxSize: 32 } };
  assertEquals(await findSubgroups(gpu as unknown as GPUDevice), { size: 0, directive: "" });
});
