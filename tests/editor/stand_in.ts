/** A Denops over an editor of a few buffers, in memory: what the plugin calls, and nothing else. */
import type { Denops } from "@denops/std";

interface Buffer {
  readonly name: string;
  lines: string[];
  loaded: boolean;
  readonly variables: Record<string, unknown>;
}

/** The editor and its Denops. Buffer numbers count from 1; `columns` is the screen's width. */
export class StandIn {
  readonly buffers: Buffer[] = [];
  readonly commands: string[] = [];
  readonly shown = new Set<number>();

  readonly denops = {
    name: "lowrank",
    dispatcher: {},
    call: (fn: string, ...args: unknown[]) => {
      const known = this.functions as unknown as Record<string, (...args: unknown[]) => unknown>;
      if (!(fn in known)) throw new Error(`the stand-in has no function ${fn}`);
      return Promise.resolve(known[fn](...args));
    },
    cmd: (command: string) => {
      this.commands.push(command);
      const shown = command.match(/vsplit \| buffer (\d+)/);
      if (shown) this.shown.add(Number(shown[1]));
      return Promise.resolve();
    },
  } as unknown as Denops;

  /** Opens a buffer: its number. */
  open(name: string, lines: string[] = []): number {
    return this.buffers.push({ name, lines, loaded: false, variables: {} });
  }

  private readonly functions = {
    bufname: (n: number) => this.buffers[n - 1].name,
    fnamemodify: (name: string) => name,
    bufadd: (name: string) => this.buffers.findIndex((b) => b.name === name) + 1 || this.open(name, [""]),
    bufloaded: (n: number) => Number(this.buffers[n - 1].loaded),
    bufload: (n: number) => void (this.buffers[n - 1].loaded = true),
    setbufvar: (n: number, name: string, value: unknown) => void (this.buffers[n - 1].variables[name] = value),
    getbufline: (n: number) => this.buffers[n - 1].lines,
    setbufline: (n: number, first: number, lines: string[]) =>
      void this.buffers[n - 1].lines.splice(first - 1, lines.length, ...lines),
    deletebufline: (n: number, first: number) => void this.buffers[n - 1].lines.splice(first - 1),
    bufwinid: (n: number) => this.shown.has(n) ? 1000 : -1,
  };
}
