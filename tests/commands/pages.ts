/** The commands of the pages, and what is different where a test runs them. */

/** What a page's commands need, and how they are made small. */
export interface Page {
  /** A model that must be in .cache for it. */
  readonly needs?: "smollm2" | "minilm";
  /** What the page takes as given: shell that is run before its commands, in the same folder. */
  readonly before?: string;
  /** Parts of commands that are replaced, with what and why. One that the page has not is a mistake. */
  readonly small?: Readonly<Record<string, readonly [to: string, why: string]>>;
  /** Commands that are not run, by their beginning, and why. */
  readonly leftOut?: Readonly<Record<string, string>>;
}

const short = "a test's time";
const rows = `printf '%s\\n' '{"text":"one row"}' '{"prompt":"another ","completion":"row"}'`;
const tiny = "./task lowrank train --model assets/letters-base --data rows.jsonl --steps 1 --samples 0 --out";

/** Pages with commands; those that are not named here are run as they stand. */
export const pages: Readonly<Record<string, Page>> = {
  "README.md": {
    needs: "smollm2",
    small: {
      "./task train ": ["./task train --steps 4 ", short],
      "--allow-write=out train.ts": ["--allow-write=out train.ts --steps 4", short],
      "--steps 12": ["--steps 2", short],
      "--no-chat": ["--no-chat --max-tokens 4", short],
    },
    leftOut: {
      "./task test ": "it would run this",
      "llama-cli ": "llama.cpp's own program; test:peers loads such a file by llama.cpp",
    },
  },
  "bench/README.md": {
    needs: "smollm2",
    small: {
      " gpt2-small --serve": [" gpt2-tiny --serve", short],
      "bench/against.ts 7": ["bench/against.ts 1", short],
      "bench/against.ts 5": ["bench/against.ts 1", short],
      '"python3 bench/torch_step.py gpt2-small" ': ["", "PyTorch and PEFT are test:peers's"],
      '"python3 bench/llama_decode.py $MODEL" ': ["", "llama.cpp is test:peers's"],
      ' "python3 bench/torch_decode.py"': ["", "PyTorch is test:peers's"],
      "bench/decode.ts $MODEL": ["bench/decode.ts $MODEL --tokens 2", short],
      "bench/packed_step.ts $MODEL": ["bench/packed_step.ts $MODEL --rounds 1", short],
    },
    leftOut: {
      "deno test --no-check": "a part of ./task test",
      "deno run --no-lock --allow-read --allow-env --allow-run --allow-write=out out/gpu.js": "for a graphics card",
    },
  },
  "docs/adapter_files.md": {
    before: `cases=tests/goldens/cases
cp $cases/llama-gguf/llama-F32.gguf base.gguf
mkdir -p out && rm -rf out/adapter
cp -R $cases/llama-lora-qv/adapter out/adapter
cp -R $cases/gpt2-lora-pissa/pissa_trained pissa-adapter
cp -R $cases/gpt2-ia3/adapter ia3-adapter
cp -R $cases/gpt2-combine/adapters/one out/formal
cp -R $cases/gpt2-combine/adapters/three out/brief
base() { sed -i 's#_name_or_path": .*#_name_or_path": "'$cases/$2'",#' $1/adapter_config.json; }
base out/adapter llama-base/model
base ia3-adapter gpt2-base/model
base pissa-adapter gpt2-base/model`,
  },
  "docs/blas.md": {
    before: `${rows} > rows.jsonl`,
    small: { "--blas ": ["--blas --steps 1 --samples 0 ", short] },
    leftOut: { "sudo apt-get install": "it installs a library for the whole machine" },
  },
  "docs/errors.md": {
    leftOut: {
      "lowrank": "tests/e2e/bad_input_test.ts runs each, in a folder of its own",
      "train.ts": "as above",
    },
  },
  "docs/generation.md": {
    needs: "smollm2",
    before: `${rows} > rows.jsonl
${tiny} out/letters
cp .cache/smollm2/*.gguf smollm2.gguf`,
    small: { "./task lowrank generate": ["./task lowrank generate --max-tokens 4", short] },
  },
  "docs/training.md": {
    before: `mkdir -p models letters
cp -R assets/letters-base models/SmolLM2
${rows} > letters/train.jsonl
${rows} > letters/test.jsonl`,
    small: { "lowrank generate": ["lowrank generate --max-tokens 4", short] },
  },
  "docs/recipes/letters.md": {
    needs: "smollm2",
    small: {
      "letters.ts": ["letters.ts 2", short],
      "--steps 60": ["--steps 2 --samples 0", short],
      "--warmup 5": ["--warmup 1", short],
      "--evaluate-every 20": ["--evaluate-every 2", short],
      "--system": ["--max-tokens 4 --system", short],
    },
  },
  "docs/recipes/style.md": {
    needs: "smollm2",
    small: {
      "--seq 128": ["--seq 32", short],
      "--steps 60": ["--steps 2 --samples 0", short],
      "--evaluate-every 20": ["--evaluate-every 2", short],
      '"A recipe is"': ['--max-tokens 4 "A recipe is"', short],
      "style.ts docs": ["style.ts docs/recipes", short],
    },
  },
  "docs/recipes/spam.md": { needs: "minilm", small: { "spam.ts": ["spam.ts 2 32", short] } },
  "docs/recipes/methods.md": {
    needs: "minilm",
    small: { "bench:methods": ["bench:methods --steps 1 --seeds 1 --test-rows 16 --only IA3", short] },
    leftOut: { "deno task bench:methods --task letters": "the same program on a larger model" },
  },
  "docs/recipes/ranks.md": { small: { "ranks.ts": ["ranks.ts 1 2", short] } },
  "docs/recipes/preferences.md": {
    small: {
      "docs/recipes/preferences.ts": ["docs/recipes/preferences.ts 12", short],
      "--steps 40": ["--steps 2", short],
    },
  },
};

/** The commands of a page's shell blocks: one that goes on in the next line, or has a text below it, is one. */
export function commandsOf(markdown: string): string[] {
  const commands: string[] = [];
  for (const [, block] of markdown.matchAll(/^```(?:sh|bash|shell|console)\n([^]*?)^```/gm)) {
    let open: string | null = null, end: string | null = null;
    for (const line of block.split("\n")) {
      if (open === null && line.trim() === "") continue;
      open = open === null ? line : `${open}\n${line}`;
      const more = end === null ? line.endsWith("\\") : line !== end;
      const begun: string | null = end === null ? /<<'?(\w+)'?/.exec(line)?.[1] ?? null : null;
      if (begun !== null) end = begun;
      if (more || begun !== null) continue;
      commands.push(open);
      [open, end] = [null, null];
    }
  }
  return commands;
}

/** The shell that a test runs in place of a page's commands; null where none is left. Throws what is wrong with the table. */
export function scriptOf(name: string, commands: readonly string[]): string | null {
  const { before = "", small = {}, leftOut = {} } = pages[name] ?? {};
  const begins = Object.keys(leftOut);
  const unused = new Set([...begins, ...Object.keys(small)]);
  const kept = commands.filter((command) => {
    const found = begins.find((begin) => command.startsWith(begin));
    if (found !== undefined) unused.delete(found);
    return found === undefined;
  }).map((command) => {
    for (const [from, [to]] of Object.entries(small)) {
      if (!command.includes(from)) continue;
      unused.delete(from);
      command = command.replaceAll(from, to);
    }
    if (command.includes("…")) throw new Error(`${name}: "${command}" is no command that can be run as it stands`);
    return command;
  });
  if (unused.size > 0) throw new Error(`${name} has no command with ${[...unused].join(" or ")}`);
  return kept.length === 0 ? null : `${before}\n${kept.join("\n")}`;
}
