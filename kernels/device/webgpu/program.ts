import { type DType, storageBytes } from "../../../core/dtype.ts";
import { DeviceError } from "../../../core/errors.ts";
import type { BufferRef, Kernel, Program, Step } from "../../ir/kernel.ts";
import { emitWgsl } from "../../wgsl/emit.ts";
import type { WgslShader } from "../../wgsl/shader.ts";
import type { DeviceBuffer, Executable } from "../executable.ts";
import type { TileConfig } from "../../wgsl/tile.ts";
import type { Failures } from "./failures.ts";
import { formatMiB, roundUp, type WebGpuBuffer, type WebGpuMemory } from "./memory.ts";
import type { Arena } from "../arena.ts";
import type { Pipeline, Pipelines } from "./pipelines.ts";
import { timePasses } from "./timestamps.ts";

/** What a program needs of its device. */
export interface Home {
  readonly gpu: GPUDevice;
  readonly description: string;
  readonly tileFor: (kernel: Kernel) => TileConfig;
  readonly memory: WebGpuMemory;
  readonly arena: Arena<WebGpuBuffer>;
  readonly failures: Failures;
  readonly pipelines: Pipelines;
  /** Queues the commands of an encoder. */
  readonly submit: (encoder: GPUCommandEncoder) => void;
}

/** A step made ready: its pipeline and, for each binding, where the bytes are. */
interface Dispatch {
  readonly shader: WgslShader;
  readonly pipeline: Pipeline;
  readonly bindings: readonly { readonly ref: BufferRef; readonly start: number; readonly bytes: number }[];
  readonly clear: { readonly ref: BufferRef; readonly bytes: number } | null;
  /** Bind groups by the serials of the buffers in them. */
  readonly groups: Map<string, GPUBindGroup>;
}

/** Bind groups that a step keeps: enough for buffers that alternate, few enough to forget freed ones. */
const keptGroups = 4;

/** A program on WebGPU: one command encoder per run. */
export class WebGpuProgram implements Executable {
  /** Dispatches by which arguments are given the same buffer: that decides which operands share a binding. */
  readonly #variants = new Map<string, readonly Dispatch[]>();

  constructor(readonly device: Home, readonly program: Program) {
    // Before kernels are written for what there will never be.
    for (const { dtype, size } of program.outputs) device.memory.sizeOf(storageBytes(dtype, size));
    device.memory.sizeOf(program.arenaBytes);
    const distinct = program.arguments.map((_, i) => i);
    const outputs = program.outputs.map(({ donated }, i) => donated ?? program.arguments.length + i);
    this.#variant([...distinct, ...outputs]);
    try {
      device.arena.add(this, program.arenaBytes);
    } catch (error) {
      this.#drop();
      throw error;
    }
  }

  run(args: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[]): void {
    this.device.failures.checkNow();
    const [dispatches, given] = this.#resolve(args, outputs);
    const broken = dispatches.find(({ pipeline }) => pipeline.failed);
    if (broken) {
      // Another run tries once more.
      this.#drop();
      throw broken.pipeline.failed;
    }
    this.device.failures.watch(() => this.#encode(dispatches, given));
  }

  /** A run in which every dispatch is a pass of its own, between two timestamps. */
  async time(args: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[]): Promise<readonly number[]> {
    const [dispatches, given] = this.#resolve(args, outputs);
    const times = await timePasses(this.device.gpu, dispatches.length, (encoder, i, timestampWrites) => {
      this.#clear(encoder, dispatches[i], given);
      const pass = encoder.beginComputePass({ timestampWrites });
      this.#dispatch(pass, dispatches[i], given);
      pass.end();
    });
    await this.device.failures.check();
    let at = 0;
    return this.program.steps.map((step) => isEmpty(step) ? 0 : times[at++]);
  }

  /** The dispatches of a run, and its arguments followed by its outputs. */
  #resolve(args: readonly DeviceBuffer[], outputs: readonly DeviceBuffer[]) {
    const given = [...args, ...outputs].map((buffer) => this.device.memory.check(buffer));
    const first = new Map<WebGpuBuffer, number>();
    given.forEach((buffer, i) => first.has(buffer) || first.set(buffer, i));
    return [this.#variant(given.map((buffer) => first.get(buffer)!)), given] as const;
  }

  #encode(dispatches: readonly Dispatch[], given: readonly WebGpuBuffer[]): void {
    const encoder = this.device.gpu.createCommandEncoder();
    let pass: GPUComputePassEncoder | null = null;
    for (const dispatch of dispatches) {
      if (dispatch.clear) {
        pass?.end();
        pass = null;
        this.#clear(encoder, dispatch, given);
      }
      pass ??= encoder.beginComputePass();
      this.#dispatch(pass, dispatch, given);
    }
    pass?.end();
    this.device.submit(encoder);
  }

  #clear(encoder: GPUCommandEncoder, { clear }: Dispatch, given: readonly WebGpuBuffer[]): void {
    if (!clear) return;
    const { ref, bytes } = clear;
    encoder.clearBuffer(this.#buffer(ref, given).gpu, ref.kind === "arena" ? ref.offset : 0, bytes);
  }

  #dispatch(pass: GPUComputePassEncoder, dispatch: Dispatch, given: readonly WebGpuBuffer[]): void {
    pass.setPipeline(dispatch.pipeline.gpu);
    pass.setBindGroup(0, this.#bindGroup(dispatch, given));
    pass.dispatchWorkgroups(...dispatch.shader.grid);
  }

  free(): void {
    this.device.arena.remove(this);
    this.#drop();
  }

  #drop(): void {
    for (const dispatches of this.#variants.values()) this.#dropAll(dispatches);
    this.#variants.clear();
  }

  #dropAll(dispatches: readonly Dispatch[]): void {
    for (const { pipeline } of dispatches) this.device.pipelines.drop(pipeline);
  }

  /** `first[i]` is the first of the arguments and outputs that is the same buffer as number i. */
  #variant(first: readonly number[]): readonly Dispatch[] {
    const key = first.join();
    let dispatches = this.#variants.get(key);
    if (!dispatches) {
      const made: Dispatch[] = [];
      try {
        for (const step of this.program.steps) if (!isEmpty(step)) made.push(this.#prepare(step, first));
      } catch (error) {
        this.#dropAll(made);
        throw error;
      }
      this.#variants.set(key, dispatches = made);
    }
    return dispatches;
  }

  #prepare({ kernel, buffers }: Step, first: readonly number[]): Dispatch {
    const places = buffers.map((ref) => this.#place(ref, first));
    const tile = this.device.tileFor(kernel);
    const shader = emitWgsl(kernel, tile, places.map((place) => places.indexOf(place)));
    const { limits } = this.device.gpu;
    const bindings = shader.bindings.map(({ operand, start }, i) => {
      const sharing = kernel.operands.filter((_, j) => places[j] === places[operand]);
      const bytes = Math.max(...sharing.map(({ dtype, size }) => storageBytes(dtype, size)));
      const next = shader.bindings[i + 1];
      // Up to the next window, or whole vectors to the end, which slices of the arena and buffers have room for.
      const length = next?.operand === operand ? next.start - start : roundUp(bytes - start);
      return { ref: buffers[operand], start, bytes: length };
    });
    if (bindings.length > limits.maxStorageBuffersPerShaderStage) {
      throw new DeviceError(
        `Cannot run "${shader.name}" on ${this.device.description}: it has ${bindings.length} bindings and the device ` +
          `has ${limits.maxStorageBuffersPerShaderStage} (operands beyond ` +
          `${formatMiB(tile.window)} take several): use a smaller batch or --device cpu`,
      );
    }
    const clear = shader.clear === undefined ? null : exact(kernel.operands[shader.clear], buffers[shader.clear]);
    return { shader, pipeline: this.device.pipelines.take(shader), bindings, clear, groups: new Map() };
  }

  /** The same text for two operands with the same bytes. */
  #place(ref: BufferRef, first: readonly number[]): string {
    if (ref.kind === "arena") return `arena ${ref.offset}`;
    return `buffer ${first[this.#position(ref)]}`;
  }

  /** Where a reference is among the arguments followed by the outputs. */
  #position(ref: Exclude<BufferRef, { kind: "arena" }>): number {
    return ref.kind === "argument" ? ref.index : this.program.arguments.length + ref.index;
  }

  #buffer(ref: BufferRef, given: readonly WebGpuBuffer[]): WebGpuBuffer {
    return ref.kind === "arena" ? this.device.arena.buffer! : given[this.#position(ref)];
  }

  #bindGroup({ bindings, groups }: Dispatch, given: readonly WebGpuBuffer[]): GPUBindGroup {
    const key = bindings.map(({ ref }) => this.#buffer(ref, given).serial).join();
    let group = groups.get(key);
    if (!group) {
      if (groups.size >= keptGroups) groups.delete(groups.keys().next().value!);
      group = this.device.gpu.createBindGroup({
        layout: this.device.pipelines.layout(bindings.length),
        entries: bindings.map(({ ref, start, bytes }, binding) => {
          const { gpu, bytes: held } = this.#buffer(ref, given);
          const offset = (ref.kind === "arena" ? ref.offset : 0) + start;
          return { binding, resource: { buffer: gpu, offset, size: Math.min(bytes, held - offset) } };
        }),
      });
      groups.set(key, group);
    }
    return group;
  }
}

/** Whether a step has no point to run. */
function isEmpty({ kernel }: Step): boolean {
  switch (kernel.kind) {
    case "map":
      return kernel.shape.includes(0);
    case "row":
      return kernel.rows.includes(0);
    case "contract":
      return kernel.batch.includes(0) || kernel.m === 0 || kernel.n === 0;
    case "scatter":
      return kernel.targets === 0 || kernel.cols === 0;
    case "attention":
      return kernel.batch * kernel.heads * kernel.queries === 0;
  }
}

function exact({ dtype, size }: { dtype: DType; size: number }, ref: BufferRef) {
  return { ref, bytes: storageBytes(dtype, size) };
}
