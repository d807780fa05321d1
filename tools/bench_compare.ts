/**
 * `bench_compare.ts REV [FILE…] [--filter=NAME]`: runs benchmarks as they are here and as they were at REV, in turns on one machine, and
 * prints the ratio of the medians. Above 1.00 this tree is faster. Each tree runs its own copy of a file.
 */
import { join } from "node:path";

const rounds = 3;
const [rev, ...rest] = Deno.args;
const [flags, files] = [rest.filter((arg) => arg.startsWith("--")), rest.filter((arg) => !arg.startsWith("--"))];
if (!rev) {
  console.error("give a revision: deno task bench:compare HEAD~1 bench/gemm.ts");
  Deno.exit(2);
}

/** Runs a command to its end; its output. Fails with its output. */
async function run(program: string, args: string[], cwd = "."): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args, cwd, env: { NO_COLOR: "1" } }).output();
  if (success) return new TextDecoder().decode(stdout);
  console.error(`${program} ${args.join(" ")} failed:\n${new TextDecoder().decode(stderr)}`);
  Deno.exit(1);
}

/** Mean nanoseconds of each benchmark of a file, by its name. */
async function measure(tree: string, file: string): Promise<Map<string, number>> {
  const text = await run(
    "deno",
    ["bench", "--json", "--allow-read", "--allow-env", "--no-check", ...flags, file],
    tree,
  );
  const { benches } = JSON.parse(text.slice(text.indexOf("{"))) as {
    benches: { name: string; group: string | null; results: { ok?: { avg: number } }[] }[];
  };
  return new Map(benches.flatMap(({ name, group, results }) => {
    const avg = results[0]?.ok?.avg;
    return avg === undefined ? [] : [[group ? `${group}: ${name}` : name, avg] as const];
  }));
}

const median = (xs: readonly number[]) => xs.toSorted((a, b) => a - b)[xs.length >> 1];

const commit = (await run("git", ["rev-parse", "--short", `${rev}^{commit}`])).trim();
const there = await Deno.makeTempDir({ prefix: "lowrank-bench-" });
await run("git", ["worktree", "add", "--detach", join(there, "tree"), commit]);
try {
  for (const file of files.length > 0 ? files : ["bench/gemm.ts", "bench/lora_linear.ts"]) {
    const seen = new Map<string, { here: number[]; before: number[] }>();
    for (let round = 0; round < rounds; round++) {
      for (const [side, tree] of [["here", "."], ["before", join(there, "tree")]] as const) {
        for (const [name, ns] of await measure(tree, file)) {
          const entry = seen.get(name) ?? { here: [], before: [] };
          entry[side].push(ns);
          seen.set(name, entry);
        }
      }
    }
    console.log(
      `${file}: ${commit} and this tree, ${rounds} rounds in turns\n${"ratio".padStart(7)}  before    here      of`,
    );
    for (const [name, { here, before }] of seen) {
      if (here.length === 0 || before.length === 0) {
        console.log(`      —  only ${here.length === 0 ? `at ${commit}` : "here"}: ${name}`);
        continue;
      }
      const [now, then] = [median(here), median(before)];
      const ms = (ns: number) => `${(ns / 1e6).toPrecision(3)} ms`.padEnd(10);
      console.log(`${(then / now).toFixed(2).padStart(7)}  ${ms(then)}${ms(now)}${name}`);
    }
  }
} finally {
  await run("git", ["worktree", "remove", "--force", join(there, "tree")]);
  await Deno.remove(there, { recursive: true });
}
