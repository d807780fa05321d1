import { DeviceError } from "../../core/errors.ts";
import type { WgslShader } from "../wgsl/shader.ts";
import type { Failures } from "./webgpu_failures.ts";

/** Compiled shaders by their text, so that equal kernels of all programs compile once, and the layouts they share. */
export class Pipelines {
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #layouts = new Map<number, GPUBindGroupLayout>();

  /** `directive` is what shaders with subgroups begin with. */
  constructor(readonly device: GPUDevice, readonly failures: Failures, readonly directive: string = "") {}

  /** The number of pipelines compiled so far. */
  get size(): number {
    return this.#pipelines.size;
  }

  /** The layout of `count` storage buffers; all kernels bind theirs alike. */
  layout(count: number): GPUBindGroupLayout {
    let layout = this.#layouts.get(count);
    if (!layout) {
      layout = this.device.createBindGroupLayout({
        entries: Array.from({ length: count }, (_, binding) => ({
          binding,
          visibility: GPUShaderStage.COMPUTE,
          buffer: { type: "storage" as const },
        })),
      });
      this.#layouts.set(count, layout);
    }
    return layout;
  }

  /** The text as this runtime wants it. A directive stands on the first line: lines keep their numbers. */
  #source({ text }: WgslShader): string {
    return /\bsubgroup[A-Z]/.test(text) ? this.directive + text : text;
  }

  /** The pipeline of a shader. A shader that does not compile is reported by the next read. */
  get(shader: WgslShader): GPUComputePipeline {
    let pipeline = this.#pipelines.get(shader.text);
    if (!pipeline) {
      let module: GPUShaderModule;
      pipeline = this.failures.watch(() => {
        module = this.device.createShaderModule({ label: shader.name, code: this.#source(shader) });
        return this.device.createComputePipeline({
          label: shader.name,
          layout: this.device.createPipelineLayout({ bindGroupLayouts: [this.layout(shader.bindings.length)] }),
          compute: { module, entryPoint: "main" },
        });
      }, async (message) => describeShaderError(shader, message, await module.getCompilationInfo()));
      this.#pipelines.set(shader.text, pipeline);
    }
    return pipeline;
  }
}

/** Names the kernel and shows the line that was refused. */
function describeShaderError(shader: WgslShader, message: string, info: GPUCompilationInfo): DeviceError {
  const error = info.messages.find(({ type }) => type === "error");
  const number = error?.lineNum || Number(message.match(/wgsl:(\d+):/)?.[1] ?? 0);
  const line = shader.text.split("\n")[number - 1]?.trim();
  const place = line ? `, line ${number}: \`${line}\`` : "";
  const why = (error?.message ?? message).split("\n").find((text) => text.trim() !== "")?.trim() ?? message;
  return new DeviceError(
    `The kernel "${shader.name}" did not compile${place}: ${why} (a bug of this library: please report it)`,
  );
}
