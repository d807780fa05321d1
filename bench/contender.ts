/** Processes that take turns: each says `ready`, and answers a line with the milliseconds of doing its work once. */
import { linesOf } from "./lines.ts";

/** One of them. */
export interface Contender {
  /** Has it do its work, that which `line` asks for where it has a choice; milliseconds. */
  sample(line?: string): Promise<number>;
  /** Ends its input; what it then says of itself, as one JSON object. */
  end(): Promise<Record<string, unknown>>;
  /** Ends it as it is, if it still runs. */
  stop(): void;
}

/** Starts a program; resolves once it is ready. */
export async function startContender(program: string, args: readonly string[]): Promise<Contender> {
  const process = new Deno.Command(program, { args: [...args], stdin: "piped", stdout: "piped" }).spawn();
  const answers = linesOf(process.stdout);
  const writer = process.stdin.getWriter();
  const gone = () => new Error(`${program} ${args.join(" ")} ended before its answer`);
  const next = async () => {
    const { value, done } = await answers.next();
    if (done) throw gone();
    return value;
  };
  while (await next() !== "ready");
  return {
    sample: async (line = "") => {
      await writer.write(new TextEncoder().encode(`${line}\n`)).catch(() => Promise.reject(gone()));
      return Number(await next());
    },
    end: async () => {
      await writer.close();
      return JSON.parse(await next());
    },
    stop() {
      try {
        process.kill();
      } catch (error) {
        if (!(error instanceof TypeError)) throw error; // it has ended
      }
    },
  };
}
