/** Lines of text between processes. */

/** The lines of a stream of bytes. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream() as never) as ReadableStream<string>) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
  if (rest !== "") yield rest;
}

/** Says that it is ready, then answers each line of standard input with the milliseconds that `timed` gives. */
export async function answerLines(timed: () => Promise<number>): Promise<void> {
  console.log("ready");
  for await (const _ of linesOf(Deno.stdin.readable)) console.log(await timed());
}
