/**
 * A JSR registry on loopback: takes what `deno publish` sends and serves exactly that, beside stand-ins for the packages of
 * JSR that ours imports. Only what the client asks for is there.
 */
import { createHash } from "node:crypto";
import { parseTarGzip } from "nanotar";

interface Package {
  readonly version: string;
  /** By path from the package's root: `/mod.ts`. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly exports: Readonly<Record<string, string>>;
}

/** The registry; `url` is what JSR_URL has to be. */
export interface Registry extends AsyncDisposable {
  readonly url: string;
  readonly packages: ReadonlyMap<string, Package>;
}

/** Starts a registry that has `standIns`: by package name, a version, and the local module behind each export. */
export function startRegistry(
  standIns: Record<string, { version: string; exports: Record<string, string> }>,
): Registry {
  const packages = new Map<string, Package>();
  for (const [name, { version, exports }] of Object.entries(standIns)) {
    const files = new Map<string, Uint8Array>();
    for (const path of Object.values(exports)) files.set(path.slice(1), Deno.readFileSync(path));
    packages.set(name, { version, files, exports });
  }

  const receive = async (name: string, version: string, body: ReadableStream<Uint8Array>) => {
    const files = new Map<string, Uint8Array>();
    for (const { name, data } of await parseTarGzip(await new Response(body).bytes())) {
      if (data) files.set(`/${name}`, data);
    }
    const { exports } = JSON.parse(new TextDecoder().decode(files.get("/deno.json")));
    packages.set(name, { version, files, exports });
    return Response.json({ id: "1", status: "success", error: null });
  };

  const route = (request: Request): Response | Promise<Response> => {
    const { pathname } = new URL(request.url);
    const api = pathname.match(/^\/api\/scopes\/([^/]+)\/packages\/([^/]+)(?:\/versions\/([^/]+))?$/);
    if (api) {
      const [, scope, name, version] = api;
      if (request.method === "POST") return receive(`@${scope}/${name}`, version, request.body!);
      return version ? new Response("{}", { status: 404 }) : Response.json({ scope, name });
    }
    const [, scope, bare, rest] = pathname.match(/^\/(@[^/]+)\/([^/]+)\/(.+)$/) ?? [];
    const found = packages.get(`${scope}/${bare}`);
    if (!found) return new Response("no such package", { status: 404 });
    const { version, files, exports } = found;
    if (rest === "meta.json") return Response.json({ scope, name: bare, latest: version, versions: { [version]: {} } });
    if (rest === `${version}_meta.json`) {
      const manifest = Object.fromEntries([...files].map(([path, bytes]) => [
        path,
        { size: bytes.length, checksum: `sha256-${createHash("sha256").update(bytes).digest("hex")}` },
      ]));
      return Response.json({ manifest, exports });
    }
    const bytes = files.get(rest.slice(version.length));
    if (!bytes) return new Response("no such file", { status: 404 });
    const type = rest.endsWith(".ts") ? "text/typescript" : rest.endsWith(".json") ? "application/json" : "";
    return new Response(bytes.slice(), { headers: { "content-type": type || "application/octet-stream" } });
  };

  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, route);
  return {
    url: `http://127.0.0.1:${server.addr.port}/`,
    packages,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}
