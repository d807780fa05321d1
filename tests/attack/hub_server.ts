/** A hub on loopback, which may answer as it likes. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { download, type HubOptions } from "../../models/load/hub/hub.ts";

/** The commit that it has. */
export const commit = "0123456789abcdef0123456789abcdef01234567";
const bytes = (text: string) => new TextEncoder().encode(text);
/** Its file of weights. */
export const weights = new Uint8Array(300_000).map((_, i) => i * 7 + (i >> 8));

/** Takes a request over, or leaves it to the hub. */
export type Answer = (path: string, request: Request) => Response | Promise<Response> | undefined;

/** A hub of one repository on loopback, and an empty cache; `answer` may take a request over. */
export function startHub(
  answer: Answer = () => undefined,
  more: Record<string, Uint8Array> = {},
) {
  const files: Record<string, Uint8Array> = {
    ...more,
    "config.json": bytes('{"model_type":"gpt2"}'),
    "model.safetensors": weights,
    "pytorch_model.bin": bytes("pickle"),
    "onnx/model.onnx": bytes("onnx"),
  };
  const asked: string[] = [];
  const route = (path: string, request: Request): Response => {
    if (path === `/api/models/owner/name/revision/main`) return Response.json({ id: "owner/name", sha: commit });
    if (path === `/api/models/owner/name/tree/${commit}`) {
      return Response.json(
        Object.entries(files).map(([path, data]) => ({
          type: "file",
          path,
          size: data.length,
          oid: createHash("sha1").update(`blob ${data.length}\0`).update(data).digest("hex"),
          ...(data === weights && { lfs: { oid: createHash("sha256").update(data).digest("hex"), size: data.length } }),
        })),
      );
    }
    const data = files[path.replace(`/owner/name/resolve/${commit}/`, "")];
    if (!data) return Response.json({ error: "Repository not found" }, { status: 404 });
    const start = Number(request.headers.get("range")?.match(/bytes=(\d+)-/)?.[1] ?? 0);
    return new Response(data.slice(start), { status: start > 0 ? 206 : 200 });
  };
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen: () => {} }, (request) => {
    const path = new URL(request.url).pathname;
    asked.push(`${path.split("/").pop()} ${request.headers.get("range") ?? ""}`.trim());
    return answer(path, request) ?? route(path, request);
  });
  const cache = Deno.makeTempDirSync({ prefix: "lowrank-hub-" });
  const variables = { HF_ENDPOINT: `http://127.0.0.1:${server.addr.port}`, HF_HUB_CACHE: cache };
  return {
    asked,
    cache,
    variables,
    blob: join(cache, "models--owner--name", "blobs", createHash("sha256").update(weights).digest("hex")),
    async download(place = "owner/name", { env: own, ...options }: HubOptions & { env?: Record<string, string> } = {}) {
      const env = { ...variables, ...own };
      const before = Object.keys(env).map((name) => [name, Deno.env.get(name)] as const);
      for (const [name, value] of Object.entries(env)) Deno.env.set(name, value);
      try {
        return await download(place, options);
      } finally {
        for (const [name, value] of before) value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
      }
    },
    async [Symbol.asyncDispose]() {
      await server.shutdown();
      Deno.removeSync(cache, { recursive: true });
    },
  };
}
