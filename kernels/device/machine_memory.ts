/** How much memory this machine, or the container that this process runs in, has for a device. */

/** What the engine takes beside a device's memory while a model of some hundred million parameters is traced, trained and saved. */
const engineBytes = 320e6;

/**
 * The bytes that a device may take: the machine's memory, or the limit of its container (a cgroup) where that is less, without
 * what the process has taken so far and {@link engineBytes}. Infinity where `--allow-sys=systemMemoryInfo` is not given, and outside Deno.
 */
export async function machineMemory(): Promise<number> {
  if (!mayReadMachine()) return Infinity;
  const { constrainedMemory } = await import("node:process"); // here, so that a bundle for browsers can hold this file
  // 0 and 2⁶⁴ - 1 say that there is no limit.
  const limit = constrainedMemory() || Infinity;
  return Math.max(0, Math.min(Deno.systemMemoryInfo().total, limit) - Deno.memoryUsage().rss - engineBytes);
}

/** Whether the machine's memory may be looked at. Asking the user would stop a run that needs no answer. */
function mayReadMachine(): boolean {
  if (typeof Deno === "undefined") return false;
  return Deno.permissions.querySync({ name: "sys", kind: "systemMemoryInfo" }).state === "granted";
}
