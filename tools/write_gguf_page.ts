/** Writes docs/gguf.md: every key of a GGUF file that is known, as the reader's own table has it. */
import { type GgufKey, ggufKeys, ownGgufKeys } from "../models/load/gguf/keys.ts";
import { ggufArchitectures } from "../models/load/gguf/names.ts";
import { preTokenizers } from "../models/load/gguf/pre_tokenizers.ts";
import { ggufTypes } from "../models/load/gguf/quants.ts";

const code = (names: Iterable<string>) => [...names].map((name) => `\`${name}\``).join(", ");

const table = (rows: readonly GgufKey[]) =>
  `| key | meaning | if absent | here |
| --- | --- | --- | --- |
${rows.map(({ key, meaning, absent, here }) => `| \`${key}\` | ${meaning} | ${absent} | ${here} |`).join("\n")}`;

/** The page. */
export function ggufPage(): string {
  const own = ggufArchitectures.flatMap(ownGgufKeys);
  return `# GGUF files

\`--model FILE.gguf\` reads a model as llama.cpp does: a missing key takes llama.cpp's default, and a value that would mean a
different computation is refused by the key's name, never silently ignored. This page is generated (\`deno task docs:gguf\`)
from the table that the reader itself uses; tests check every row, and \`./task test:peers\` compares them with llama.cpp.

Supported are little-endian files of versions 2 and 3, of the architectures ${
    code(ggufArchitectures)
  } (\`ARCH\` below), with
tensors of the types ${[...ggufTypes.values()].map(({ name }) => name).join(", ")}. Version 1 and big-endian files are
refused.

${table(ggufKeys)}
${
    own.length === 0 ? "" : `
Some architectures have keys of their own, or mean more by one of the above:

${table(own)}
`
  }
A key that begins with the architecture's name or \`tokenizer.\` and is not in the table is mentioned once, in a note, and
has no effect. Other keys are ignored.

## Tensors

Names are llama.cpp's. Without \`output.weight\` the head is tied to \`token_embd.weight\`. \`rope_freqs.weight\` (in \`llama\`)
divides each frequency, in addition to the common factor. Biases are used if their tensors are present: in \`llama\` all four
of attention or none, in \`qwen2\` those of q, k and v. A tensor that is unexpected, missing or of the wrong shape is refused
by name.

## Tokenizers

A tokenizer.json next to the file is the model's own and is used. Otherwise the tokenizer is rebuilt from the file: kind
\`gpt2\` is byte-level BPE, kind \`llama\` SentencePiece's BPE. \`tokenizer.ggml.pre\` may be ${
    code(preTokenizers.keys())
  }; others are refused by name. If it is absent, texts are split as by llama.cpp's \`default\`, and a note says so:
the model may have been trained with a different one.
`;
}

if (import.meta.main) await Deno.writeTextFile("docs/gguf.md", ggufPage());
