import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { parseArgs } from "node:util";
import { DataError, OptionError } from "../core/errors.ts";
import { describeError, Interrupted } from "./errors.ts";

Deno.test("an error of the library is one sentence and exit code 1", () => {
  assertEquals(describeError(new DataError("rows.jsonl is empty"), false), {
    text: "error: rows.jsonl is empty",
    code: 1,
  });
});

Deno.test("an unknown flag is the caller's to fix", () => {
  try {
    parseArgs({ args: ["--modle", "x"], options: { model: { type: "string" } } });
    throw new Error("parsed");
  } catch (error) {
    const { text, code } = describeError(error, false);
    assertMatch(text, /^error: Unknown option '--modle'/);
    assertEquals(code, 1);
  }
});

Deno.test("--debug shows its stack", () => {
  const { text, code } = describeError(new OptionError("r must be at least 1, got 0"), true);
  assertMatch(text, /r must be at least 1, got 0\n\s+at .*errors_test\.ts/);
  assertEquals(code, 1);
});

Deno.test("anything else keeps its stack, is called a bug, and exits with 70", () => {
  const { text, code } = describeError(new TypeError("x is not a function"), false);
  assertMatch(text, /x is not a function\n\s+at .*errors_test\.ts/);
  assertStringIncludes(text, "This is a bug in lowrank");
  assertEquals(code, 70);
  assertEquals(describeError("a string", false).code, 70);
});

Deno.test("an interrupted run says where it saved and exits with 130", () => {
  assertEquals(describeError(new Interrupted("Saved to out/adapter after step 7."), false).code, 130);
});

/** Runs a program that uses errors.ts, sending a signal, by default Ctrl-C, each time it prints `ready`. */
async function runProgram(body: string, signal: Deno.Signal = "SIGINT"): Promise<{ code: number; output: string }> {
  const folder = await Deno.makeTempDir();
  try {
    const at = new URL("./errors.ts", import.meta.url).href;
    await Deno.writeTextFile(
      `${folder}/program.ts`,
      `import { Interrupted, onInterrupt, reportErrors } from "${at}";\n${body}`,
    );
    const child = new Deno.Command("deno", {
      args: ["run", "--quiet", "--no-lock", "--allow-read", `${folder}/program.ts`],
      stdin: "null", // not the nohup's that these tests may run under
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let output = "";
    const collect = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) {
        output += text;
        if (text.includes("ready")) child.kill(signal);
      }
    };
    await Promise.all([collect(child.stdout), collect(child.stderr)]);
    return { code: (await child.status).code, output };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

// Windows has no way to send another process Ctrl-C from here.
const ignore = Deno.build.os === "windows";

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  Deno.test({ name: `${signal} lets the loop save and exits with 130`, ignore }, async () => {
    const { code, output } = await runProgram(
      `
      await reportErrors(async () => {
        using interrupt = onInterrupt();
        console.log("ready");
        while (!interrupt.signal.aborted) await new Promise((done) => setTimeout(done, 5));
        throw new Interrupted("Saved to out/adapter after step 7.");
      });`,
      signal,
    );
    assertEquals(code, 130);
    assertStringIncludes(output, "finishing this step and saving");
    assertStringIncludes(output, "Saved to out/adapter after step 7.");
  });
}

Deno.test({ name: "a second Ctrl-C ends the process at once", ignore }, async () => {
  const { code, output } = await runProgram(`
    await reportErrors(async () => {
      using interrupt = onInterrupt(() => setTimeout(() => console.log("ready again"), 500)); // a person's second
      console.log("ready");
      await new Promise((done) => setTimeout(done, 600_000));
      console.log("never");
    });`);
  assertEquals(code, 130);
  assertEquals(output.includes("never"), false);
});
