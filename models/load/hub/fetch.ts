/** Requests to the hub. What comes back is data of somebody else's: it is bounded in size and time, and checked before use. */
import { FileError } from "../../../core/errors.ts";
import { formatCount } from "../../../core/host/format.ts";

/** Whom to ask, as whom, and for how long. */
export interface HubAccess {
  /** Where the hub is; the token goes to no other origin. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** Seconds in which something must come. */
  readonly patience: number;
  /** Called when the hub asks for a wait. */
  readonly onWait?: (seconds: number) => void;
}

/** The hub's refusal of one request. */
export class HubStatusError extends Error {
  /** @param more the rest of its answer */
  constructor(readonly statusCode: number, readonly more = "") {
    super(`the hub answered with status ${statusCode}${more}`);
  }
}

/** The network failed, not the hub, the disk or this program. */
export class NetworkError extends Error {}

/** How often what the network breaks is tried again, each time after twice the wait. */
export const tries = 5;

/** The longest wait, in seconds, that a busy hub is granted. */
const longestWait = 60;

/** The most bytes of an answer that is no file, and the most pages of a list. */
const answerBytes = 1 << 26, maxPages = 1000;

/** `fetch` with the token where it belongs; waits as long as a busy hub asks, some times over and within reason. */
export async function hubFetch(
  url: string,
  { endpoint, token, patience, onWait }: HubAccess,
  headers: Record<string, string> = {},
): Promise<Response> {
  const own = new URL(url).origin === new URL(endpoint).origin;
  for (let attempt = 1;; attempt++) {
    const response = await inTime(
      patience,
      (signal) =>
        fetch(url, { headers: { ...headers, ...(own && token && { authorization: `Bearer ${token}` }) }, signal }),
    );
    if (![429, 503].includes(response.status) || attempt === tries) return response;
    const seconds = waitAsked(response.headers.get("retry-after")) ?? 2 ** attempt / 2;
    await response.body?.cancel();
    if (seconds > longestWait) {
      throw new HubStatusError(response.status, `, asking for ${formatCount(Math.ceil(seconds))} seconds`);
    }
    if (seconds >= 1) onWait?.(seconds);
    await pause(seconds);
  }
}

/** Seconds, or a date. */
function waitAsked(header: string | null): number | null {
  if (header === null) return null;
  const seconds = /^\s*-?\d+(\.\d+)?\s*$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}

/** The parts of a body as they come, each in time. */
export async function* bodyOf(response: Response, patience: number): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    while (true) {
      const { value, done } = await inTime(patience, () => reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // it is closed already, or nobody waits for it
  }
}

/**
 * `fetch` for the hub's own questions: what it returns holds one JSON object, or for a list one array of objects.
 *
 * @throws {FileError} for an answer that is something else, too large, or does not end
 */
export function answersOnly(access: HubAccess): typeof fetch {
  const { host } = new URL(access.endpoint);
  let pages = 0;
  return async (input) => {
    const url = String(input);
    const refused = (what: string) =>
      new FileError(`${host} answers ${what} where a hub says what it has: check HF_ENDPOINT.`);
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw refused(`with ${JSON.stringify(url).slice(0, 80)} for its next page`);
    }
    if (++pages > maxPages) throw refused(`with more than ${maxPages} pages`);
    const response = await hubFetch(url, access, { accept: "application/json" });
    if (!response.ok) {
      await response.body?.cancel();
      throw new HubStatusError(response.status);
    }
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    for await (const part of bodyOf(response, access.patience)) {
      if ((size += part.length) > answerBytes) throw refused(`with more than ${answerBytes} bytes`);
      parts.push(part as Uint8Array<ArrayBuffer>);
    }
    const text = await new Blob(parts).text();
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      throw refused(`with something that is not JSON (${JSON.stringify(text.slice(0, 40))})`);
    }
    const isObject = (x: unknown) => typeof x === "object" && x !== null && !Array.isArray(x);
    const isList = new URL(url).pathname.includes("/tree/");
    if (isList ? !Array.isArray(value) || !value.every(isObject) : !isObject(value)) {
      throw refused(`with other JSON (${text.slice(0, 40)})`);
    }
    const link = response.headers.get("link");
    return new Response(text, { headers: link === null ? {} : { link } });
  };
}

/** The result of an action, with a time limit; a failure of the network is a {@link NetworkError}. */
export async function inTime<T>(seconds: number, action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new NetworkError(`nothing came in ${seconds} seconds`)), seconds * 1000);
  });
  try {
    return await Promise.race([action(controller.signal), late]);
  } catch (error) {
    if (error instanceof NetworkError) {
      controller.abort();
      throw error;
    }
    if (typeof Deno === "undefined") throw error; // a page
    const network = error instanceof TypeError || error instanceof Deno.errors.Http ||
      error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.UnexpectedEof;
    throw network ? new NetworkError(error.message) : error;
  } finally {
    clearTimeout(timer);
  }
}

/** Waits. */
export const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
