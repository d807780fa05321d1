/** A headless Neovim behind the Denops interface: msgpack-rpc over `nvim --embed`. */
import type { Denops } from "@denops/std";
import { decodeMultiStream, Encoder } from "@msgpack/msgpack";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The editor's program, where this machine has one that may be run. */
export function findNvim(): string | undefined {
  try {
    return new Deno.Command("nvim", { args: ["--version"] }).outputSync().success ? "nvim" : undefined;
  } catch {
    return undefined;
  }
}

/** What the plugin calls of denops.vim: the calls come to the embedding process, which the editor knows as channel 1. */
const denopsInVim = {
  "autoload/denops.vim": `
function! denops#notify(plugin, method, args) abort
  call call('rpcnotify', [1, a:method] + a:args)
endfunction`,
  "autoload/denops/plugin.vim": `
function! denops#plugin#wait_async(plugin, callback) abort
  call a:callback()
endfunction`,
};

/** Starts Neovim with this plugin and nothing of the user's, and `folder` for its files; `close` ends it. */
export function startNvim(program: string, folder: string) {
  mkdirSync(join(folder, "autoload/denops"), { recursive: true });
  for (const [path, text] of Object.entries(denopsInVim)) writeFileSync(join(folder, path), text);
  const plugin = fileURLToPath(new URL("../../plugin/lowrank.vim", import.meta.url));
  const child = new Deno.Command(program, {
    args: ["--embed", "--headless", "--clean", "--cmd", `set rtp+=${folder} | let g:loaded_denops = 1`, "-S", plugin],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  const encoder = new Encoder();
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let serial = 0;
  const send = (method: string, ...params: unknown[]) => {
    const id = serial++;
    const answer = new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
    writer.write(encoder.encode([0, id, method, params]).slice());
    return answer;
  };
  const denops = {
    name: "lowrank",
    dispatcher: {} as Record<string, (...args: unknown[]) => unknown>,
    call: (fn: string, ...args: unknown[]) => send("nvim_call_function", fn, args),
    cmd: async (command: string) => void await send("nvim_command", command),
    eval: (expression: string) => send("nvim_eval", expression),
  };
  /** Settles when the last call that the editor made of the plugin has ended. */
  let called: Promise<unknown> = Promise.resolve();
  const listening = (async () => {
    for await (const message of decodeMultiStream(child.stdout)) {
      const [kind, ...rest] = message as [number, ...unknown[]];
      if (kind === 1) {
        const [id, error, result] = rest as [number, [number, string] | null, unknown];
        const { resolve, reject } = waiting.get(id)!;
        waiting.delete(id);
        if (error) reject(new Error(error[1]));
        else resolve(result);
      } else if (kind === 2) {
        const [method, args] = rest as [string, unknown[]];
        called = Promise.resolve(denops.dispatcher[method](...args));
      }
    }
  })();
  return {
    denops: denops as unknown as Denops,
    settled: () => called,
    async close() {
      void send("nvim_command", "qall!"); // An editor that ends does not answer.
      await child.status;
      writer.releaseLock();
      await child.stdin.close().catch(() => {});
      await listening;
    },
  };
}
