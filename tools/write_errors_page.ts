/** Writes docs/errors.md, the page of every mistake that has a test of its own, from tests/e2e/bad_input.ts. */
import { type BadInput, badInputs } from "../tests/e2e/bad_input.ts";

/** The page. */
export function errorsPage(): string {
  const parts = Object.entries(badInputs).map(([part, entries]) =>
    `## ${part}\n\n${entries.map(formatEntry).join("\n")}`
  );
  return `# What can go wrong, and what the error says

A mistake ends a command with one sentence on standard error and exit code 1, or exit code 2 if the command line can't
be parsed. Exit code 70 is a bug in lowrank: the stack trace is shown (\`--debug\` shows it for mistakes too). Exit code
130 is Ctrl-C. In the sentences below, … stands for parts that vary. This page is generated (\`deno task docs:errors\`)
from the table that the tests run.

${parts.join("\n")}`;
}

function formatEntry({ name, args, before, program, sentence, code }: BadInput): string {
  const written = (words: readonly string[]) =>
    words[0] === "lowrank" ? words.join(" ") : `train.ts ${words.join(" ")}`;
  const command = program ?? [before, args].flatMap((words) => words ? [written(words)] : []).join("\n");
  const exit = code === 1 ? "" : `\nExit code ${code}.\n`;
  return `### ${name}\n\n${fence(program === undefined ? "sh" : "ts ignore", command)}\n${
    fence("text", sentence)
  }${exit}`;
}

function fence(language: string, text: string): string {
  return `\`\`\`${language}\n${text}\n\`\`\`\n`;
}

if (import.meta.main) {
  await Deno.writeTextFile("docs/errors.md", errorsPage());
}
