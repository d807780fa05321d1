/** Processes that take turns: each says `ready`, and answers a line with the milliseconds of doing its work once. */
import { linesOf } from "./lines.ts";

/** One of them. */
export interface Contender {
  readonly process: Deno.ChildProcess;
  /** Has it do its work once; milliseconds. */
  sample(): Promise<number>;
  /** Ends its input; what it then says of itself, as one JSON object. */
  end(): Promise<Record<string, unknown>>;
}

/** Starts a program; resolves once it is ready. */
export async function startContender(program: string, args: readonly string[]): Promise<Contender> {
  const process = new Deno.Command(program, { args: [...args], stdin: "piped", stdout: "piped" }).spawn();
  const answers = linesOf(process.stdout);
  const writer = process.stdin.getWriter();
  const next = async () => {
    const { value, done } = await answers.next();
    if (done) throw new Error(`${program} ${args.join(" ")} ended before its answer`);
    return value;
  };
  while (await next() !== "ready");
  return {
    process,
    sample: async () => {
      await writer.write(new TextEncoder().encode("\n"));
      return Number(await next());
    },
    end: async () => {
      await writer.close();
      return JSON.parse(await next());
    },
  };
}
