/** A small assembler: functions are written instruction by instruction, modules import one memory and export functions. */
import {
  type LaneMemoryOpcode,
  laneMemoryOpcodes,
  type LaneOpcode,
  laneOpcodes,
  type MemoryOpcode,
  memoryOpcodes,
  type PlainOpcode,
  plainOpcodes,
} from "./opcodes.ts";

/** Value types of locals, parameters and results. */
export type ValueType = "i32" | "f32" | "v128";

const valueTypes: Record<ValueType, number> = { i32: 0x7f, f32: 0x7d, v128: 0x7b };
const emptyBlock = 0x40;

/** A local variable or parameter of one function. */
export type Local = number & { readonly local: unique symbol };

/** The end of a counted loop: a local, or a number. */
export type Limit = Local | { readonly constant: number };

/** The body of one function, in the order in which it is written. */
export class Code {
  readonly #bytes: number[] = [];
  readonly #locals: ValueType[] = [];
  readonly #free: Record<ValueType, Local[]> = { i32: [], f32: [], v128: [] };
  readonly #constants = new Map<string, Local>();
  readonly #prologue: number[] = [];
  #depth = 0;

  /** A function of these parameters (locals 0, 1, …) and results. */
  constructor(readonly parameters: readonly ValueType[], readonly results: readonly ValueType[] = []) {}

  /** Parameter `i`. */
  parameter(i: number): Local {
    return i as Local;
  }

  /** A fresh local, zero at first unless it was released before. */
  local(type: ValueType): Local {
    const reused = this.#free[type].pop();
    if (reused !== undefined) return reused;
    this.#locals.push(type);
    return (this.parameters.length + this.#locals.length - 1) as Local;
  }

  /** Gives a local back for reuse. */
  release(type: ValueType, ...locals: Local[]): void {
    this.#free[type].push(...locals);
  }

  op(...names: PlainOpcode[]): this {
    for (const name of names) this.#opcode(plainOpcodes[name]);
    return this;
  }

  get(local: Local): this {
    return this.#write(0x20).#unsigned(local);
  }

  set(local: Local): this {
    return this.#write(0x21).#unsigned(local);
  }

  tee(local: Local): this {
    return this.#write(0x22).#unsigned(local);
  }

  /** Pushes an i32 constant. */
  i32(value: number): this {
    return this.#write(0x41).#signed(value | 0);
  }

  /** Pushes four equal f32 lanes. */
  f32x4(value: number): this {
    scratch.setFloat32(0, value, true);
    return this.i32x4(...splat(scratch.getInt32(0, true)));
  }

  /** Pushes two equal f64 lanes. */
  f64x2(value: number): this {
    scratch.setFloat64(0, value, true);
    const low = scratch.getInt32(0, true), high = scratch.getInt32(4, true);
    return this.i32x4(low, high, low, high);
  }

  /** Pushes four i32 lanes. Each constant is a local set once at the function's start: engines do not hoist them. */
  i32x4(...lanes: [number, number, number, number]): this {
    const key = lanes.join();
    let local = this.#constants.get(key);
    if (local === undefined) {
      this.#locals.push("v128");
      local = (this.parameters.length + this.#locals.length - 1) as Local;
      this.#constants.set(key, local);
      this.#prologue.push(0xfd, 0x0c);
      for (const x of lanes) this.#prologue.push(x & 255, (x >> 8) & 255, (x >> 16) & 255, (x >> 24) & 255);
      this.#prologue.push(0x21, ...unsigned(local));
    }
    return this.get(local);
  }

  /** Pushes sixteen bytes. */
  bytes(values: readonly number[]): this {
    const [a, b, c, d] = new Int32Array(Uint8Array.from(values).buffer);
    return this.i32x4(a, b, c, d);
  }

  /** Picks bytes of two vectors: 0 to 15 of the first, 16 to 31 of the second. */
  shuffleBytes(bytes: readonly number[]): this {
    this.#opcode(0xfd0d);
    return this.#write(...bytes);
  }

  /** Picks 32-bit lanes of two vectors: 0 to 3 of the first, 4 to 7 of the second. */
  shuffle(...lanes: [number, number, number, number]): this {
    this.#opcode(0xfd0d);
    for (const lane of lanes) this.#write(lane * 4, lane * 4 + 1, lane * 4 + 2, lane * 4 + 3);
    return this;
  }

  /** A load or store at the address on the stack plus `offset` bytes. */
  memory(name: MemoryOpcode, offset = 0): this {
    const [opcode, align] = memoryOpcodes[name];
    return this.#opcode(opcode).#write(align).#unsigned(offset);
  }

  laneMemory(name: LaneMemoryOpcode, lane: number, offset = 0): this {
    const [opcode, align] = laneMemoryOpcodes[name];
    return this.#opcode(opcode).#write(align).#unsigned(offset).#write(lane);
  }

  lane(name: LaneOpcode, lane: number): this {
    return this.#opcode(laneOpcodes[name]).#write(lane);
  }

  /** memory.fill: address, byte value and byte count are on the stack. */
  fill(): this {
    return this.#write(0xfc, 0x0b, 0);
  }

  call(functionIndex: number): this {
    return this.#write(0x10).#unsigned(functionIndex);
  }

  /** Pushes a limit. */
  push(limit: Limit): this {
    return typeof limit === "number" ? this.get(limit) : this.i32(limit.constant);
  }

  /** into = min(into, limit), signed. */
  limit(into: Local, limit: Limit): this {
    this.get(into).push(limit).get(into).push(limit);
    return this.op("i32.lt_s", "select").set(into);
  }

  /** `if` on the i32 on the stack. */
  when(then: () => void, otherwise?: () => void): this {
    this.#write(0x04, emptyBlock);
    this.#depth++;
    then();
    if (otherwise) {
      this.op("else");
      otherwise();
    }
    this.#depth--;
    return this.op("end");
  }

  /**
   * Runs `body` while `counter + step <= limit`, adding `advance` each time (less than `step` where the body has advanced
   * the counter itself). The counter keeps its value afterwards.
   */
  loopUpTo(counter: Local, limit: Limit, step: number, body: () => void, advance = step): this {
    const enough = () => {
      this.get(counter);
      if (step !== 1) this.i32(step - 1).op("i32.add");
      this.push(limit).op("i32.lt_s");
    };
    enough();
    this.#write(0x04, emptyBlock, 0x03, emptyBlock);
    this.#depth += 2;
    body();
    this.get(counter).i32(advance).op("i32.add").set(counter);
    enough();
    this.#write(0x0d, 0x00);
    this.#depth -= 2;
    return this.op("end", "end");
  }

  /** Runs `body` for as long as what `condition` pushes is not 0. */
  repeatWhile(condition: () => void, body: () => void): this {
    this.#write(0x03, emptyBlock);
    this.#depth++;
    condition();
    this.when(() => {
      body();
      this.#write(0x0c, 0x01);
    });
    this.#depth--;
    return this.op("end");
  }

  /** The encoded function: its locals, body and final `end`. */
  encode(): number[] {
    if (this.#depth !== 0) throw new Error("a block of generated code was left open");
    const groups: number[] = [];
    let count = 0;
    for (let i = 0; i < this.#locals.length;) {
      let end = i;
      while (end < this.#locals.length && this.#locals[end] === this.#locals[i]) end++;
      groups.push(...unsigned(end - i), valueTypes[this.#locals[i]]);
      count++;
      i = end;
    }
    const head = [...unsigned(count), ...groups];
    const encoded = unsigned(head.length + this.#prologue.length + this.#bytes.length + 1);
    return encoded.concat(head, this.#prologue, this.#bytes, 0x0b);
  }

  #write(...bytes: number[]): this {
    for (const byte of bytes) this.#bytes.push(byte);
    return this;
  }

  #opcode(opcode: number): this {
    return opcode < 256 ? this.#write(opcode) : this.#write(0xfd).#unsigned(opcode - 0xfd00);
  }

  #unsigned(value: number): this {
    return this.#write(...unsigned(value));
  }

  #signed(value: number): this {
    for (;;) {
      const byte = value & 127;
      value >>= 7;
      if ((value === 0 && (byte & 64) === 0) || (value === -1 && (byte & 64) !== 0)) return this.#write(byte);
      this.#write(byte | 128);
    }
  }
}

const scratch = new DataView(new ArrayBuffer(8));

function splat(lane: number): [number, number, number, number] {
  return [lane, lane, lane, lane];
}

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  do {
    const byte = value % 128;
    value = Math.floor(value / 128);
    bytes.push(value > 0 ? byte | 128 : byte);
  } while (value > 0);
  return bytes;
}

/** A function that a module imports as `module.name`; it gives no result. */
export interface ImportedFunction {
  readonly module: string;
  readonly name: string;
  readonly parameters: readonly ValueType[];
}

/**
 * A module that imports memory `m.m` and holds `functions`; the last one is exported as `run`. Functions call each other
 * by position, counted after the imported ones.
 */
export function assembleModule(
  functions: readonly Code[],
  memory: { readonly shared: boolean },
  imported: readonly ImportedFunction[] = [],
): Uint8Array<ArrayBuffer> {
  const vector = (items: readonly number[][]) => unsigned(items.length).concat(...items);
  const section = (id: number, content: number[]) => [id, ...unsigned(content.length)].concat(content);
  const signature = (types: readonly ValueType[]) => vector(types.map((type) => [valueTypes[type]]));
  const name = (text: string) => vector([...text].map((c) => [c.charCodeAt(0)]));
  const limits = [memory.shared ? 3 : 1, 1, ...unsigned(65536)];
  const bytes = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0].concat(
    section(
      1,
      vector([
        ...imported.map((f) => [0x60, ...signature(f.parameters), 0]),
        ...functions.map((f) => [0x60, ...signature(f.parameters), ...signature(f.results)]),
      ]),
    ),
    section(
      2,
      vector([
        [...name("m"), ...name("m"), 2, ...limits],
        ...imported.map((f, i) => [...name(f.module), ...name(f.name), 0, ...unsigned(i)]),
      ]),
    ),
    section(3, vector(functions.map((_, i) => unsigned(imported.length + i)))),
    section(7, vector([[...name("run"), 0, ...unsigned(imported.length + functions.length - 1)]])),
    section(10, vector(functions.map((f) => f.encode()))),
  );
  return new Uint8Array(bytes);
}
