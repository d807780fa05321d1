/** What a machine has for a comparison on its GPU, and in sentences what it lacks. */
import type { FoundAdapter } from "../kernels/device/webgpu/adapter.ts";

/** What `torch_device.py` says of a Python. */
export interface PythonFacts {
  readonly python: string | null;
  readonly torch: string | null;
  readonly transformers: string | null;
  readonly peft: string | null;
  /** The name of its CUDA device. */
  readonly cuda: string | null;
  /** Why its PyTorch can't be loaded. */
  readonly broken?: string;
}

/** Asks a Python what it has; a Python that can't be run has nothing. */
export async function askPython(program: string, script: string): Promise<PythonFacts> {
  const nothing = { python: null, torch: null, transformers: null, peft: null, cuda: null };
  try {
    const { success, stdout, stderr } = await new Deno.Command(program, { args: [script] }).output();
    if (success) return JSON.parse(new TextDecoder().decode(stdout));
    return { ...nothing, broken: new TextDecoder().decode(stderr).trim().split("\n").at(-1) };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return nothing;
    throw error;
  }
}

/** What keeps a Python from being compared with, for products or for the step of a model. */
export function pythonMisses(program: string, facts: PythonFacts, onCuda: boolean): { all: string[]; step: string[] } {
  const other = `--python names another Python`;
  const all = facts.broken
    ? [`The PyTorch of ${program} can't be loaded (${facts.broken}); ${other}.`]
    : facts.python === null
    ? [`There is no ${program}: ${other}.`]
    : facts.torch === null
    ? [`${program} has no PyTorch: pip install torch; ${other}.`]
    : onCuda && facts.cuda === null
    ? [`PyTorch ${facts.torch} finds no CUDA device: it needs a build for CUDA and NVIDIA's driver; ${other}.`]
    : [];
  const packages = (["transformers", "peft"] as const).filter((name) => facts[name] === null);
  const step = packages.length > 0 && all.length === 0
    ? [
      `${program} lacks ${packages.join(" and ")}, so the model's step is not compared: pip install ${
        packages.join(" ")
      }.`,
    ]
    : [];
  return { all, step };
}

const icdFolders = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
/** Where containers mount NVIDIA's driver; a Vulkan loader does not look there by itself. */
const mountedFolders = ["/usr/local/nvidia/share/vulkan/icd.d", "/usr/local/nvidia/vulkan/icd.d"];
const libraryFolders = ["/usr/lib", "/usr/lib64", "/lib", `/usr/lib/${Deno.build.arch}-linux-gnu`, "/usr/local/lib"];

/** Why no GPU was found: what is seen of drivers on Linux, where that is most often the question; elsewhere nothing. */
export function driverMisses(found: FoundAdapter | { readonly missing: string }): string[] {
  const summary = "missing" in found
    ? `WebGPU offers nothing: ${found.missing}.`
    : `WebGPU offers only ${found.name}, a software adapter.`;
  if (Deno.build.os !== "linux") return [summary];
  const nvidia = exists("/proc/driver/nvidia/version");
  const given = (Deno.env.get("VK_DRIVER_FILES") ?? Deno.env.get("VK_ICD_FILENAMES"))?.split(":");
  const icds = given ?? icdFolders.flatMap(filesOf);
  const libraries = [...libraryFolders, ...Deno.env.get("LD_LIBRARY_PATH")?.split(":") ?? []];
  const mounted = mountedFolders.flatMap(filesOf).find((path) => path.includes("nvidia"));
  const has = (name: string) => icds.some((path) => path.toLowerCase().includes(name) && exists(path));
  return [
    summary,
    nvidia ? "There is an NVIDIA kernel driver." : "There is no NVIDIA kernel driver (/proc/driver/nvidia).",
    `Vulkan drivers (${given ? "as the environment says" : `in ${icdFolders.join(", ")}`}): ${
      icds.join(", ") || "none"
    }.`,
    ...(libraries.some((folder) => exists(`${folder}/libvulkan.so.1`))
      ? []
      : ["There is no Vulkan loader, libvulkan.so.1: on Debian, apt-get install libvulkan1."]),
    ...(nvidia && !has("nvidia")
      ? [
        mounted
          ? `NVIDIA's Vulkan driver lies where no loader looks: set VK_DRIVER_FILES=${mounted}.`
          : "NVIDIA's Vulkan driver (nvidia_icd.json, libGLX_nvidia.so.0) is not installed: in a container it needs " +
            "NVIDIA_DRIVER_CAPABILITIES=all.",
      ]
      : []),
  ];
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function filesOf(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => `${folder}/${name}`).sort();
  } catch {
    return [];
  }
}
