import { DeviceError } from "../../../core/errors.ts";
import type { WgslShader } from "../../wgsl/shader.ts";
import type { Failures } from "./failures.ts";

/** A compiled shader. */
export interface Pipeline {
  readonly gpu: GPUComputePipeline;
  /** Why it did not compile, once that is known. */
  readonly failed: DeviceError | null;
}

interface Counted extends Pipeline {
  readonly text: string;
  failed: DeviceError | null;
  users: number;
}

/** What drivers hold for a pipeline and each byte of its shader: measured on Mesa's. */
const driverBytes = { pipeline: 2 ** 18, byte: 32 };

/**
 * Compiled shaders by their text, so that equal kernels of all programs compile once and leave with the last of them, and
 * the layouts they share.
 */
export class Pipelines {
  readonly #pipelines = new Map<string, Counted>();
  readonly #layouts = new Map<number, GPUBindGroupLayout>();
  #held = 0;

  /** `directive` is what shaders with subgroups begin with. */
  constructor(readonly device: GPUDevice, readonly failures: Failures, readonly directive: string = "") {}

  /** The number of pipelines held. */
  get size(): number {
    return this.#pipelines.size;
  }

  /** About the bytes that they take. */
  get held(): number {
    return this.#held;
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

  /** The pipeline of a shader for one more user. A shader that does not compile is reported by the next read. */
  take(shader: WgslShader): Pipeline {
    let pipeline = this.#pipelines.get(shader.text);
    if (!pipeline) {
      pipeline = { text: shader.text, gpu: this.#compile(shader, (e) => pipeline!.failed = e), failed: null, users: 0 };
      this.#pipelines.set(shader.text, pipeline);
      this.#held += cost(pipeline);
    }
    pipeline.users++;
    return pipeline;
  }

  /** A user of it is gone. */
  drop(pipeline: Pipeline): void {
    const counted = pipeline as Counted;
    if (--counted.users > 0) return;
    this.#pipelines.delete(counted.text);
    this.#held -= cost(counted);
  }

  #compile(shader: WgslShader, fail: (error: DeviceError) => void): GPUComputePipeline {
    let module: GPUShaderModule;
    return this.failures.watch(() => {
      module = this.device.createShaderModule({ label: shader.name, code: this.#source(shader) });
      return this.device.createComputePipeline({
        label: shader.name,
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [this.layout(shader.bindings.length)] }),
        compute: { module, entryPoint: "main" },
      });
    }, async (message) => {
      const error = describeShaderError(shader, message, await module.getCompilationInfo());
      fail(error);
      return error;
    });
  }
}

function cost({ text }: Counted): number {
  return driverBytes.pipeline + driverBytes.byte * text.length;
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
