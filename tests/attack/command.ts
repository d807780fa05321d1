/** The command line in a folder of its own, with what surrounds it going wrong. */
import { writeTinyModel } from "../e2e/tiny_model.ts";

const root = new URL("../../", import.meta.url);

/** How a command is started, beside its arguments. */
export interface Surroundings {
  /** Where the shell sends its streams: `> /dev/full`. */
  readonly redirect?: string;
  /** What the command is handed to, as words of the shell. Default `exec`. */
  readonly wrap?: string;
  /** What fails, as `strace -e` says it: `inject=fsync:error=EIO:when=2`. */
  readonly inject?: readonly string[];
  /** Only calls on this path fail. */
  readonly path?: string;
  /** Further permissions. */
  readonly permissions?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Called as text comes to standard error, with all of it. */
  readonly onText?: (text: string, child: Deno.ChildProcess) => void;
}

/** How a command ended. */
export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** The calls that were made to fail, as strace logs them: also Deno's own, which come in no certain order. */
  readonly injected: readonly string[];
}

/** A folder that holds a small model (`model`), rows (`rows.jsonl`) and, of two steps of training, an adapter (`adapter`). */
export async function attackFolder() {
  const folder = await Deno.makeTempDir({ prefix: "lowrank-attack-" });
  await writeTinyModel(`${folder}/model`);
  await Deno.writeTextFile(`${folder}/rows.jsonl`, '{"text":"one row"}\n{"prompt":"another ","completion":"row"}\n');
  const at = (path: string) => `${folder}/${path}`;
  const lowrank = (args: readonly string[], surroundings: Surroundings = {}) => run(folder, args, surroundings);
  const { code, err } = await lowrank(trainArgs("adapter", "--steps", "2"));
  if (code !== 0) throw new Error(err);
  return {
    folder,
    at,
    lowrank,
    async [Symbol.asyncDispose]() {
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** What trains on the folder's rows. */
export function trainArgs(out: string, ...more: string[]): string[] {
  const given = ["--model", "model", "--data", "rows.jsonl", "--device", "cpu", "--out", out];
  return ["train", ...given, ...more];
}

/** The command that runs `lowrank ARGS` from anywhere. */
export function denoCommand(args: readonly string[], permissions: readonly string[] = []): string[] {
  const [map, program] = ["offline.json", "cli.ts"].map((name) => new URL(name, root).href);
  const flags = ["--quiet", "--no-prompt", "--no-lock", "--no-check", "--import-map", map];
  return [Deno.execPath(), "run", ...flags, "--allow-read", "--allow-write=.", ...permissions, program, ...args];
}

async function run(folder: string, args: readonly string[], around: Surroundings): Promise<Ended> {
  const { redirect = "", wrap = "exec", inject = [], path } = around;
  const log = inject.length === 0 ? null : Deno.makeTempFileSync();
  const traced = log === null ? [] : [
    ...["strace", "-f", "-y", "-qq", "-o", log, ...(path === undefined ? [] : ["-P", path])],
    ...inject.flatMap((rule) => ["-e", rule]),
  ];
  const child = new Deno.Command("sh", {
    args: ["-c", `${wrap} "$@" ${redirect}`, "sh", ...traced, ...denoCommand(args, around.permissions)],
    cwd: folder,
    env: { NO_COLOR: "1", ...around.env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const ended = await heard(child, around.onText);
  if (log === null) return ended;
  const injected = Deno.readTextFileSync(log).split("\n").filter((line) => line.includes("(INJECTED)"));
  Deno.removeSync(log);
  return { ...ended, injected };
}

/** What a child says until it ends. */
export async function heard(child: Deno.ChildProcess, onText?: Surroundings["onText"]): Promise<Ended> {
  let err = "";
  const listen = async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
      err += text;
      onText?.(err, child);
    }
  };
  const [out] = await Promise.all([new Response(child.stdout).text(), listen()]);
  return { code: (await child.status).code, out, err, injected: [] };
}

/** Whether a program is installed. */
export function isInstalled(program: string): boolean {
  try {
    return new Deno.Command(program, { args: ["--version"], stdout: "null", stderr: "null" }).outputSync().success;
  } catch {
    return false;
  }
}

/** Makes a link; Deno lets only those do so who may write everywhere. */
export function linkTo(target: string, path: string): void {
  const { success } = new Deno.Command("sh", { args: ["-c", 'ln -sfn "$1" "$2"', "sh", target, path] }).outputSync();
  if (!success) throw new Error(`${path} can't be made a link`);
}
