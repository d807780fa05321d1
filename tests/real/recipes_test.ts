/** The commands of every recipe, run in their order at a small size. What a recipe needs and is not here is said. */
import { assert } from "@std/assert";
import { pathKind } from "../../models/load/byte_source.ts";
import { minilm, smollm2 } from "./real_case.ts";

const root = new URL("../../", import.meta.url);

/** What is replaced in a page's commands to make them small; a replacement that meets nothing is a mistake of the page's. */
const pages: Record<string, { readonly needs?: string; readonly small: Readonly<Record<string, string>> }> = {
  letters: {
    needs: smollm2,
    small: {
      "letters.ts": "letters.ts 2",
      "--steps 60": "--steps 2 --samples 0",
      "--warmup 5": "--warmup 1",
      "--evaluate-every 20": "--evaluate-every 2",
      "--system": "--max-tokens 4 --system",
    },
  },
  style: {
    needs: smollm2,
    small: {
      "--seq 128": "--seq 32",
      "--steps 60": "--steps 2 --samples 0",
      "--evaluate-every 20": "--evaluate-every 2",
      '"A recipe is"': '--max-tokens 4 "A recipe is"',
      "style.ts docs": "style.ts docs/recipes",
    },
  },
  spam: { needs: minilm, small: { "spam.ts": "spam.ts 2 32" } },
  ranks: { small: { "ranks.ts": "ranks.ts 1 2" } },
};

/** The commands on a page, longer ones first cut at spaces that no quotes hold. */
function commandsOf(page: string, small: Readonly<Record<string, string>>): string[][] {
  const text = Deno.readTextFileSync(new URL(`docs/recipes/${page}.md`, root));
  let shell = [...text.matchAll(/```sh\n([\s\S]*?)```/g)].map(([, block]) => block).join("");
  for (const [from, to] of Object.entries(small)) {
    assert(shell.includes(from), `docs/recipes/${page}.md has no command with ${from}`);
    shell = shell.replaceAll(from, to);
  }
  return shell.trim().split("\n").map((line) =>
    [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain)
  );
}

/** The arguments of `deno` for a command of a page, or null for what brings a model. */
function argumentsOf([program, verb, task, ...rest]: readonly string[]): string[] | null {
  assert(program === "deno" && (verb === "run" || verb === "task"), `${program} ${verb} can't be run here`);
  if (verb === "run") return ["run", "--quiet", "--no-prompt", "--import-map=offline.json", task, ...rest];
  if (task.startsWith("model:")) return null;
  assert(task === "lowrank", `the task ${task} is not known here`);
  const allowed = ["--allow-read", "--allow-write=out"];
  return ["run", "--quiet", "--no-prompt", "--import-map=offline.json", ...allowed, "cli.ts", ...rest];
}

for (const [page, { needs, small }] of Object.entries(pages)) {
  const absent = needs !== undefined && pathKind(needs) === null;
  Deno.test({
    name: `docs/recipes/${page}.md${absent ? `: skipped, ${needs} is not here` : ""}`,
    ignore: absent,
    fn: async () => {
      for (const command of commandsOf(page, small)) {
        const args = argumentsOf(command);
        if (args === null) continue;
        const { success, stderr, stdout } = await new Deno.Command("deno", { args, cwd: root, env: { NO_COLOR: "1" } })
          .output();
        const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
        assert(success, `${command.join(" ")}\n${said}`);
      }
    },
  });
}

Deno.test("every recipe is on the list and run", () => {
  const list = Deno.readTextFileSync(new URL("docs/recipes/README.md", root));
  for (const { name } of Deno.readDirSync(new URL("docs/recipes", root))) {
    if (!name.endsWith(".md") || name === "README.md") continue;
    assert(list.includes(`(${name})`) && Object.hasOwn(pages, name.slice(0, -3)), name);
  }
});
