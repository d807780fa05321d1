/** Runs in a worker of a page: the laws that Deno runs, from the same files, and the sample run. */
import type { WorkerScope } from "../../examples/browser/messages.ts";
import { openDevice } from "../../mod.ts";
import { sampleLosses } from "./sample_run.ts";

/** What the page gets. */
export interface LawResults {
  readonly passed: number;
  readonly failures: readonly string[];
  readonly losses: Readonly<Record<string, readonly number[]>>;
  readonly devices: Readonly<Record<string, string>>;
}

type Step = (name: string, body: (t: { step: Step }) => unknown) => Promise<boolean>;

type Body = (t: { step: Step }) => unknown;
const tests: [string, Body][] = [];
// The law files register themselves with what they take for Deno.
Object.assign(globalThis, {
  Deno: {
    test: (about: string | { name: string }, body: Body) =>
      tests.push([typeof about === "string" ? about : about.name, body]),
    permissions: { querySync: () => ({ state: "denied" }) },
    build: { os: "linux" },
    env: { get: () => undefined, has: () => false },
  },
});

async function runAll(model: string): Promise<LawResults> {
  await import("../laws/kernels_test.ts");
  await import("../laws/device_primitives_test.ts");
  let passed = 0;
  const failures: string[] = [];
  const stepUnder = (path: string): Step => async (name, body) => {
    const here = `${path} / ${name}`;
    try {
      await body({ step: stepUnder(here) });
      passed++;
      return true;
    } catch (error) {
      failures.push(`${here}: ${(error as Error).message.split("\n")[0]}`);
      return false;
    }
  };
  for (const [name, body] of tests) {
    const [began, before] = [performance.now(), passed];
    await stepUnder("")(name, body);
    console.log(`  ${name}: ${passed - before} in ${((performance.now() - began) / 1000).toFixed(0)} s`);
  }
  Reflect.deleteProperty(globalThis, "Deno"); // from here on as any page
  const losses: Record<string, readonly number[]> = {}, devices: Record<string, string> = {};
  for (const choice of ["cpu", "webgpu"] as const) {
    try {
      using device = await openDevice(choice);
      devices[choice] = device.description;
      losses[choice] = await sampleLosses(device, model);
    } catch (error) {
      devices[choice] = (error as Error).message;
    }
  }
  return { passed, failures, losses, devices };
}

const scope = self as unknown as WorkerScope<string, LawResults>;
scope.onmessage = async ({ data }) => {
  try {
    scope.postMessage(await runAll(data));
  } catch (error) {
    scope.postMessage({ passed: 0, failures: [(error as Error).stack!], losses: {}, devices: {} });
  }
};
