/** The permissions that the arguments of `lowrank` ask for beyond what its task has: no more than what they name. */
import { load } from "js-yaml";
import { parseArgs } from "node:util";
import { pathKind, readText } from "../models/load/files/byte_source.ts";
import { hubPlaces, hubVariables } from "../models/load/hub/hub.ts";

/** What is added to a command of Deno's, and why, in words. */
export interface Grants {
  readonly flags: readonly string[];
  /** What these allow: `write to /tmp/letters`, `reach huggingface.co`. */
  readonly said: readonly string[];
  /** The arguments, without the permissions among them. */
  readonly words: readonly string[];
}

/** What is asked of the system; a test gives its own. */
export interface Surroundings {
  env(name: string): string | undefined;
  exists(path: string): boolean;
  /** The text of a file, or null where there is none. */
  text(path: string): string | null;
}

/** The hub, and where it sends those who ask for a large file. */
const hubHosts = "huggingface.co,*.huggingface.co,*.hf.co";

const system: Surroundings = {
  env: (name) => Deno.env.get(name),
  exists: (path) => pathKind(path) !== null,
  text: (path) => pathKind(path) === "file" ? readText(path) : null,
};

/** The permissions that the arguments after `cli.ts` name. */
export function grantsFor(args: readonly string[], { env, exists, text }: Surroundings = system): Grants {
  const flags: string[] = [], said: string[] = [];
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const own = args.slice(0, end);
  // A permission that is given in so many words is Deno's.
  for (const flag of own.filter(isPermission)) {
    flags.push(flag);
    said.push(`do what ${flag} allows`);
  }
  const words = own.filter((arg) => !isPermission(arg));
  const { values, positionals: [verb, ...places] } = parseArgs({ args: words, strict: false, options: withValue });
  const given = textsIn(values);
  const config = given.config ?? (values.resume ? `${given.out ?? "out/adapter"}/config.yaml` : null);
  const set = config === null ? {} : readTexts(text(config));
  const option = (name: string): string | undefined => given[name] || set[name];

  const out = option("out") ?? (verb === "report" ? places[0] : undefined);
  if (out !== undefined && out !== "") {
    const folder = /\.(gguf|html|jsonl)$/i.test(out)
      ? out.replace(/[^/\\]*$/, "").replace(/(.)[/\\]$/, "$1") || "."
      : out;
    const inOut = /^(\.[/\\])?out([/\\]|$)/.test(folder) && !folder.includes("..");
    if (!inOut && !folder.includes(",")) { // Deno would read a comma as the end of the path
      flags.push(`--allow-write=${folder}`);
      said.push(`write to ${folder}`);
    }
  }
  if (values.blas) {
    flags.push("--allow-ffi", "--allow-env=LOWRANK_BLAS");
    said.push("call the system's BLAS");
  }
  const adapters = [option("adapter"), ...(verb === "generate" || verb === "report" ? [] : places)];
  const models = [
    option("model"),
    ...adapters,
    ...adapters.map((path) => path && readTexts(text(`${path}/adapter_config.json`)).base_model_name_or_path),
  ];
  const far = models.filter((place): place is string => !!place && !exists(place));
  const web = far.filter((place) => /^https?:/.test(place) && place === option("model")).map((place) => hostOf(place));
  if (web.length > 0) {
    flags.push(`--allow-net=${web.join(",")}`);
    said.push(`reach ${web.join(", ")}`);
  }
  const named = far.find((place) => /^[\w-][\w.-]*\/[\w.-]+(\/[\w./-]+\.gguf)?$/.test(place));
  if (named !== undefined) {
    const { endpoint, cache } = hubPlaces(env);
    const hosts = endpoint ? hostOf(endpoint) : hubHosts;
    flags.push(`--allow-net=${hosts}`, `--allow-env=${hubVariables.join(",")}`, `--allow-write=${cache}`);
    said.push(`reach ${hosts.split(",")[0]} for ${named} and keep it in ${cache}`);
  }
  return { flags, said, words: [...words, ...args.slice(end)] };
}

const isPermission = (arg: string) => /^--allow-[a-z-]+(=|$)/.test(arg);

/** The options that may name a place; a word after another is taken for the verb or a place of its own. */
const withValue = Object.fromEntries(
  ["out", "model", "adapter", "config"].map((name) => [name, { type: "string" as const }]),
);

/** The entries of an object that are texts. */
function textsIn(values: object): Record<string, string | undefined> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => typeof value === "string"));
}

/** The texts in a file of options, or of an adapter's; what can't be read says so itself later. */
function readTexts(text: string | null): Record<string, string | undefined> {
  try {
    return textsIn(Object(load(text ?? "")));
  } catch {
    return {};
  }
}

function hostOf(address: string): string {
  try {
    return new URL(address).host;
  } catch {
    return address;
  }
}
