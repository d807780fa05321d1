/** The permissions that the arguments of `lowrank` ask for beyond what its task has: no more than what they name. */
import { load } from "js-yaml";
import { pathKind, readText } from "../models/load/files/byte_source.ts";

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

/** Variables that the hub's own tools read. */
const hubVariables = [
  ...["HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"],
  ...["XDG_CACHE_HOME", "HOME", "USERPROFILE"],
];

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
  const { options, rest } = readWords(words);
  const [verb, ...places] = rest;
  const config = options.get("config") ??
    (options.has("resume") ? `${options.get("out") ?? "out/adapter"}/config.yaml` : null);
  const set = config === null ? {} : readOptions(text(config));
  const option = (name: string): string | undefined => options.get(name) || set[name];

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
  if (options.has("blas")) {
    flags.push("--allow-ffi", "--allow-env=LOWRANK_BLAS");
    said.push("call the system's BLAS");
  }
  const adapters = [option("adapter"), ...(verb === "generate" || verb === "report" ? [] : places)];
  const models = [
    option("model"),
    ...adapters,
    ...adapters.map((path) => path && baseOf(text(`${path}/adapter_config.json`))),
  ];
  const far = models.filter((place): place is string => !!place && !exists(place));
  const web = far.filter((place) => /^https?:/.test(place) && place === option("model")).map((place) => hostOf(place));
  if (web.length > 0) {
    flags.push(`--allow-net=${web.join(",")}`);
    said.push(`reach ${web.join(", ")}`);
  }
  const named = far.find((place) => /^[\w-][\w.-]*\/[\w.-]+(\/[\w./-]+\.gguf)?$/.test(place));
  if (named !== undefined) {
    const endpoint = env("HF_ENDPOINT") ? hostOf(env("HF_ENDPOINT")!) : hubHosts;
    const home = env("HF_HOME") ||
      `${env("XDG_CACHE_HOME") || `${env("HOME") || env("USERPROFILE") || "."}/.cache`}/huggingface`;
    const cache = env("HF_HUB_CACHE") || `${home}/hub`;
    flags.push(`--allow-net=${endpoint}`, `--allow-env=${hubVariables.join(",")}`, `--allow-write=${cache}`);
    said.push(`reach ${endpoint.split(",")[0]} for ${named} and keep it in ${cache}`);
  }
  return { flags, said, words: [...words, ...args.slice(end)] };
}

const isPermission = (arg: string) => /^--allow-[a-z-]+(=|$)/.test(arg);

/** Options by name, and the other words. A word after an option that has no value of its own is taken for that. */
function readWords(args: readonly string[]): { options: Map<string, string>; rest: string[] } {
  const options = new Map<string, string>(), rest: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [, name, value] = /^--([\w-]+)(?:=([^]*))?$/.exec(args[i]) ?? [];
    if (name === undefined) rest.push(args[i]);
    else if (value !== undefined) options.set(name, value);
    else if (["out", "model", "adapter", "config"].includes(name)) options.set(name, args[++i] ?? "");
    else options.set(name, "");
  }
  return { options, rest };
}

/** The texts of a file of options; what can't be read says so itself later. */
function readOptions(text: string | null): Record<string, string | undefined> {
  try {
    const values = load(text ?? "");
    if (typeof values !== "object" || values === null) return {};
    return Object.fromEntries(Object.entries(values).filter(([, value]) => typeof value === "string"));
  } catch {
    return {};
  }
}

/** The base that an adapter's configuration names. */
function baseOf(text: string | null): string | undefined {
  try {
    const named = JSON.parse(text ?? "null")?.base_model_name_or_path;
    return typeof named === "string" ? named : undefined;
  } catch {
    return undefined;
  }
}

function hostOf(address: string): string {
  try {
    return new URL(address).host;
  } catch {
    return address;
  }
}
