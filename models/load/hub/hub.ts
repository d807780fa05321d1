/**
 * Models and adapters by their name on the Hugging Face hub, kept where Hugging Face's own tools keep them: `blobs/` by hash,
 * `snapshots/COMMIT/` of links to them, `refs/` from a branch to a commit. A download that broke off goes on where it ended.
 */
import { FileError, LowrankError } from "../../../core/errors.ts";
import { writeFileAtomic } from "../files/atomic_file.ts";
import { pathKind, readText } from "../files/byte_source.ts";
import { checkListed, downloadFile, type HubFile, isOfSize, linkFile } from "./download.ts";
import { answersOnly, type HubStatusError, NetworkError } from "./fetch.ts";
import { checkOptions, checkPath, type OptionNames } from "../../../core/options.ts";

/** Which state of a repository to take, and who wants to hear of the download. */
export interface HubOptions {
  /** A branch, a tag or a commit. Default `main`. */
  readonly revision?: string;
  /** Called as bytes arrive, with the bytes received and the bytes in all of the files to download. */
  readonly onDownload?: (received: number, total: number) => void;
  /**
   * Called with the folder once its small files are there and before a weight is downloaded: what it throws ends the download.
   */
  readonly accept?: (folder: string) => void;
  /** Called with the seconds of a wait that a busy hub asks for. */
  readonly onWait?: (seconds: number) => void;
}

/** The names of {@link HubOptions}. */
export const hubNames: OptionNames<HubOptions> = { revision: true, onDownload: true, accept: true, onWait: true };

/**
 * The local folder or file that `place` names: a path is itself; `owner/name` is downloaded from the hub unless the cache has
 * it, and `owner/name/file.gguf` is that one file. The environment decides as for Hugging Face's own tools: HF_ENDPOINT,
 * HF_TOKEN, HF_HOME or HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT. Needs --allow-net, --allow-env and --allow-write
 * for the cache.
 *
 * @throws {FileError} when there is no such repository or file, it may not be read, or what came is not what was promised
 */
export async function download(place: string, options: HubOptions = {}): Promise<string> {
  checkOptions("download", options, hubNames);
  checkPath("download", place);
  const named = place.match(/^([\w.-]+\/[\w.-]+)(?:\/([\w./-]+\.gguf))?$/);
  if (!named || place.startsWith(".") || pathKind(place) !== null) return place;
  const [, name, file] = named;
  const setting = readSettings(place);
  const repository = `${setting.cache}/models--${name.replace("/", "--")}`;
  const { revision = "main" } = options;
  if (setting.offline) {
    const snapshot = cachedSnapshot(repository, revision);
    if (!snapshot) {
      throw new FileError(
        `${name} (${revision}) is not in the cache ${setting.cache}, and HF_HUB_OFFLINE is set: unset it.`,
      );
    }
    return file ? `${snapshot}/${file}` : snapshot;
  }
  const hub = await import("@huggingface/hub");
  const endpoint = (setting.endpoint ?? hub.HUB_URL).replace(/\/+$/, "");
  const access = { ...setting, endpoint, onWait: options.onWait };
  // The token must not reach the package: it would go wherever the hub's answers say.
  const asked = { repo: name, hubUrl: endpoint, fetch: answersOnly(access) };
  return await explained(
    place,
    { ...setting, endpoint, revision, cached: cachedSnapshot(repository, revision) },
    async () => {
      const { sha } = await hub.modelInfo({ ...asked, name, revision, additionalFields: ["sha"] });
      if (!/^[0-9a-f]{40}$/.test(String(sha))) {
        throw new FileError(
          `${endpoint} names ${
            JSON.stringify(sha)?.slice(0, 80)
          } as the commit of ${name}, which is not a commit hash.`,
        );
      }
      const snapshot = `${repository}/snapshots/${sha}`;
      const listed: Listed[] = [];
      for await (const entry of hub.listFiles({ ...asked, revision: sha, recursive: true })) {
        if (entry.type === "file" && typeof entry.path === "string") listed.push(entry);
      }
      const wanted = choose(place, listed, file).map(checkListed);
      const missing = wanted.filter(({ path, size }) => !isOfSize(`${snapshot}/${path}`, size));
      const total = missing.reduce((sum, { size }) => sum + size, 0);
      let received = 0;
      let accepted = file !== undefined;
      for (const entry of missing) {
        if (!accepted && entry.path.endsWith(".safetensors")) {
          options.accept?.(snapshot);
          accepted = true;
        }
        const blob = `${repository}/blobs/${entry.hash}`;
        const url = `${endpoint}/${name}/resolve/${sha}/${entry.path.split("/").map(encodeURIComponent).join("/")}`;
        await downloadFile(url, entry, blob, access, (count) => options.onDownload?.(received += count, total));
        linkFile(repository, entry.hash, snapshot, entry.path);
      }
      if (revision !== sha) writeFileAtomic(`${repository}/refs/${revision}`, sha);
      return file ? `${snapshot}/${file}` : snapshot;
    },
  );
}

interface Settings {
  readonly endpoint: string | undefined;
  readonly token: string | undefined;
  readonly cache: string;
  readonly offline: boolean;
  /** Seconds in which something must come from the hub. */
  readonly patience: number;
}

/** Variables that the hub's own tools read. */
export const hubVariables = [
  ...["HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT"],
  ...["TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "HOME", "USERPROFILE"],
] as const;
type HubVariable = typeof hubVariables[number];

/** Where the hub is, if given, and where downloads are cached. An empty variable counts as absent. */
export function hubPlaces(env: (name: HubVariable) => string | undefined): Pick<Settings, "endpoint" | "cache"> {
  const home = env("HOME") || env("USERPROFILE") || ".";
  const base = env("HF_HOME") || `${env("XDG_CACHE_HOME") || `${home}/.cache`}/huggingface`;
  return { endpoint: env("HF_ENDPOINT") || undefined, cache: env("HF_HUB_CACHE") || `${base}/hub` };
}

/** An environment variable; an error if it may not be read. */
function readSettings(place: string): Settings {
  try {
    const env = (name: HubVariable) => Deno.env.get(name) || undefined;
    return {
      ...hubPlaces(env),
      token: env("HF_TOKEN"),
      patience: Number(env("HF_HUB_DOWNLOAD_TIMEOUT")) || 30,
      offline: (["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] as const).some((name) =>
        /^(1|on|yes|true)$/i.test(env(name) ?? "")
      ),
    };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    throw new FileError(
      `There is no folder ${place}: check the path; or, to download the model of that name from the Hugging Face hub, run with ` +
        `--allow-net --allow-env and --allow-write for the cache.`,
    );
  }
}

function cachedSnapshot(repository: string, revision: string): string | undefined {
  const ref = `${repository}/refs/${revision}`;
  const commit = pathKind(ref) === "file" ? readText(ref).trim() : revision;
  if (!/^[0-9a-f]{40}$/.test(commit)) return undefined;
  const snapshot = `${repository}/snapshots/${commit}`;
  return pathKind(snapshot) === "folder" ? snapshot : undefined;
}

/** A file as the hub lists it; only its name has been checked. */
type Listed = Pick<HubFile, "path">;

/** The files that belong to a model or an adapter: configuration, tokenizer, and the weights in one format. */
function choose(place: string, files: readonly Listed[], file?: string): readonly Listed[] {
  if (file) {
    const found = files.filter(({ path }) => path === file);
    if (found.length === 0) throw new FileError(`${place}: the repository has no such file${listGguf(files)}.`);
    return found;
  }
  const small = files.filter(({ path }) => /^(1_Pooling\/)?[^/]+\.(json|txt|jinja)$/.test(path));
  const weights = files.filter(({ path }) => /^[^/]+\.safetensors$/.test(path));
  const whole = weights.filter(({ path }) => path === "model.safetensors");
  if (weights.length > 0) return [...small, ...(whole.length > 0 ? whole : weights)];
  const pickled = files.some(({ path }) => path.endsWith(".bin"));
  throw new FileError(
    `${place} has no safetensors${
      pickled ? " but pickled weights (.bin), which can run code and are not read" : ""
    }: choose a ` +
      `repository that has${listGguf(files)}.`,
  );
}

function listGguf(files: readonly Listed[]): string {
  const names = files.map(({ path }) => path).filter((path) => path.endsWith(".gguf"));
  return names.length === 0 ? "" : `; it has ${names.slice(0, 5).join(", ")}: name one as owner/name/file.gguf`;
}

interface Request extends Settings {
  readonly endpoint: string;
  readonly revision: string;
  /** The folder of an earlier download of the same revision. */
  readonly cached: string | undefined;
}

/** Errors of the hub and the network, as sentences. */
async function explained<T>(place: string, request: Request, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const why = error instanceof LowrankError ? undefined : reasonOf(error as HubStatusError, request);
    if (!why) throw error;
    throw new FileError(`There is no folder ${place} here, and the hub did not give it: ${why}.`);
  }
}

function reasonOf(
  error: Error & Partial<HubStatusError>,
  { endpoint, token, revision, cache, cached }: Request,
) {
  const { host } = new URL(endpoint);
  const copy = cached ? "; HF_HUB_OFFLINE=1 takes the copy in the cache" : "";
  if (error instanceof Deno.errors.NotCapable) {
    return `${error.message.replace(/, run again.*/, "")}; run with --allow-net --allow-env --allow-write=${cache}`;
  }
  if (error instanceof NetworkError) {
    return `${host} can't be reached (${
      error.message.split("\n")[0]
    }); what was received is kept, check the connection${copy}`;
  }
  switch (error.statusCode) {
    case undefined:
      return undefined;
    case 401:
    case 403:
      return `${host} answers ${error.statusCode}, there is no such repository or ` +
        `${
          token ? "this HF_TOKEN" : "a stranger"
        } may not read it; check the name, accept its terms on its page, set HF_TOKEN`;
    case 404:
      return `${host} has no repository of this name with the revision ${revision}; check both`;
    case 429:
      return `${host} asks to slow down (429${error.more}), also after some waiting; try later, or set HF_TOKEN${copy}`;
    default:
      return `${host} answered with status ${error.statusCode}${error.more}; try later${copy}`;
  }
}
