/** Writes docs/gguf.md: every key of a GGUF file that is known, as the reader's own table has it. */
import { ggufKeys } from "../models/load/gguf/keys.ts";
import { ggufArchitectures } from "../models/load/gguf/names.ts";
import { preTokenizers } from "../models/load/gguf/pre_tokenizers.ts";
import { ggufTypes } from "../models/load/gguf/quants.ts";

const code = (names: Iterable<string>) => [...names].map((name) => `\`${name}\``).join(", ");

/** The page. */
export function ggufPage(): string {
  return `# GGUF files

\`--model FILE.gguf\` reads a model as llama.cpp does: a key that a file leaves out has llama.cpp's default, and what would
be another computation is refused by the key's name, never left out in silence. This page is written by \`deno task
docs:gguf\` from the table that the reader itself uses; tests hold every row, and \`./task test:peers\` compares them with
llama.cpp.

Read are little-endian files of the versions 2 and 3, of the architectures ${
    code(ggufArchitectures)
  } (\`ARCH\` below), with
tensors of the types ${[...ggufTypes.values()].map(({ name }) => name).join(", ")}. Version 1 and big-endian files are
refused.

| key | what it says | where absent | here |
| --- | --- | --- | --- |
${ggufKeys.map(({ key, meaning, absent, here }) => `| \`${key}\` | ${meaning} | ${absent} | ${here} |`).join("\n")}

A key that begins with the architecture's name or \`tokenizer.\` and is not in the table is named once, in a note, and has no
effect. Keys of other names are not looked at.

## Tensors

Names are llama.cpp's. Without \`output.weight\` the head is tied to \`token_embd.weight\`. \`rope_freqs.weight\`, of \`llama\`,
divides each frequency, beside the factor of all. Biases are used where their tensors are: in \`llama\` all four of attention
or none, in \`qwen2\` those of q, k and v. A tensor that is unexpected, missing or of another shape is refused by its name.

## Tokenizers

A tokenizer.json beside the file is the model's own and is used. Otherwise the tokenizer is rebuilt from the file: of the
kind \`gpt2\`, byte-level BPE, or \`llama\`, SentencePiece's BPE. \`tokenizer.ggml.pre\` may be ${
    code(preTokenizers.keys())
  }; others are refused by name. Where it is absent, texts are split as llama.cpp's \`default\` does, and a note says so:
the model may have learned another.
`;
}

if (import.meta.main) await Deno.writeTextFile("docs/gguf.md", ggufPage());
