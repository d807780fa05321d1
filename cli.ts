/**
 * `lowrank COMMAND …`: the command line. Exit codes: 0, 1 for a mistake that one sentence explains, 2 for a command line that
 * can't be read, 70 for a bug, 130 after Ctrl-C.
 *
 * @module
 */
import { asCalled } from "./cli/call.ts";
import { type Command, type Terminal, UsageError } from "./cli/command.ts";
import { nearest } from "./core/host/nearest.ts";
import { openOutput, openTerminalSize, type Output, writeToStderr } from "./core/host/output.ts";
import project from "./deno.json" with { type: "json" };
import { wrap } from "./train/options/option_table.ts";
import { describeError, describeLost, EXIT_ERROR, ignoreHangup } from "./report/errors.ts";

/** The exit code of a command line that can't be read. */
const EXIT_USAGE = 2;

/** The commands; each is loaded when it is called. */
const commands: Readonly<Record<string, () => Promise<{ readonly command: Command }>>> = {
  train: () => import("./cli/train.ts"),
  eval: () => import("./cli/eval.ts"),
  generate: () => import("./cli/generate.ts"),
  inspect: () => import("./cli/inspect.ts"),
  merge: () => import("./cli/merge.ts"),
  convert: () => import("./cli/convert.ts"),
  combine: () => import("./cli/combine.ts"),
  diff: () => import("./cli/diff.ts"),
  verify: () => import("./cli/verify.ts"),
  report: () => import("./cli/report.ts"),
};

const shared = `Every command takes
  --help     what the command does, its options and an example
  --json     the result as one JSON object on standard output
  --quiet    only results, warnings and errors
  --debug    errors with their stacks
NO_COLOR=1 switches colours off. Exit codes: 0 done, 1 a mistake (one sentence
says which), 2 wrong usage, 70 a bug, 130 interrupted.`;

const usageHint = (name: string) => `see lowrank ${name === "" ? "" : `${name} `}--help`;

/** Runs a command line; the exit code. Output that can't be written does not end the work, but a result that could not be written is an error. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  ignoreHangup();
  const output = openOutput();
  const code = await runCommand(args, output);
  if (code !== 0 || output.lost === null) return code;
  output.warn(describeLost(output.lost));
  return EXIT_ERROR;
}

async function runCommand(args: readonly string[], output: Output): Promise<number> {
  const { words, switches } = takeSwitches(args);
  const debug = switches.has("--debug");
  let called = "";
  try {
    if (switches.has("--version") && words.length === 0) {
      output.print(project.version);
      return 0;
    }
    const helped = words[0] === "help";
    const [name, ...rest] = helped ? words.slice(1) : words;
    if (name === undefined) {
      const text = await describeCommands();
      if (helped || switches.has("--help")) {
        output.print(text);
        return 0;
      }
      output.warn(hint(`error: no command is given\n\n${text}\n${usageHint(called)}`));
      return EXIT_USAGE;
    }
    if (!Object.hasOwn(commands, name)) {
      const near = nearest(name, Object.keys(commands));
      throw new UsageError(`there is no command ${name}${near === null ? "" : `; did you mean ${near}?`}`);
    }
    called = name;
    const { command } = await commands[name]();
    if (helped || switches.has("--help")) {
      output.print(
        `${wrap(`lowrank ${name}: ${command.summary}`, 80, 2)}\n\n${command.usageFor?.(rest) ?? command.usage}`,
      );
    } else await command.run(rest, openTerminal(switches, output));
    return 0;
  } catch (error) {
    if (error instanceof UsageError && !debug) {
      output.warn(hint(`error: ${error.message}\n${usageHint(called)}`));
      return EXIT_USAGE;
    }
    const { text, code } = describeError(error, debug);
    output.warn(hint(text));
    return error instanceof UsageError ? EXIT_USAGE : code;
  }
}

/** A line with the commands in it as the user called this one. */
const hint = (text: string) => asCalled(text, Object.keys(commands));

/** Takes out the switches that every command has; what follows `--` is left alone. */
function takeSwitches(args: readonly string[]): { words: string[]; switches: Set<string> } {
  const known = ["--help", "-h", "--json", "--quiet", "--debug", "--version"];
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const isSwitch = (arg: string, i: number) => i < end && known.includes(arg);
  return {
    words: args.filter((arg, i) => !isSwitch(arg, i)),
    switches: new Set(args.filter(isSwitch).map((arg) => arg === "-h" ? "--help" : arg)),
  };
}

function openTerminal(switches: ReadonlySet<string>, output: Output): Terminal {
  const [json, quiet] = [switches.has("--json"), switches.has("--quiet")];
  const { terminal, columns } = openTerminalSize();
  const { print, warn } = output;
  const hinted = (line: string) => warn(hint(line));
  const say = quiet ? () => {} : hinted;
  /** Next to a result in JSON, text goes to standard error as long as anybody reads it. */
  const tell = (piece: string) => {
    if (!quiet) writeToStderr(piece);
    return true;
  };
  return {
    json,
    quiet,
    color: terminal && !Deno.noColor,
    columns,
    print: json ? say : print,
    write: json ? tell : output.write,
    result: (value) => json && print(JSON.stringify(value)),
    say,
    warn: hinted,
  };
}

async function describeCommands(): Promise<string> {
  const loaded = await Promise.all(Object.values(commands).map(async (load) => (await load()).command));
  const width = Math.max(0, ...loaded.map(({ name }) => name.length)) + 2;
  const list = loaded.map(({ name, summary }) => `  ${name.padEnd(width)}${wrap(summary, 78 - width, width + 2)}`)
    .join("\n");
  return `lowrank ${project.version}: fine-tune language models with low-rank adapters\n\n` +
    `Usage: lowrank COMMAND [OPTIONS]\n\n${list}\n\n${shared}\n\nExample:\n  lowrank train --help`;
}

if (import.meta.main) {
  const code = await runCommandLine(Deno.args);
  if (code !== 0) Deno.exit(code);
}
