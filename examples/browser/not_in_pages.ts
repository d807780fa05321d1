/** In place of `node:crypto` and the client of Hugging Face's hub in the bundle for pages, which fetch a model from their own site. */

const refuse = (what: string) => (): never => {
  throw new Error(`A page can't ${what}: do this from Deno.`);
};

export const createHash = refuse("hash files");
export const modelInfo = refuse("ask the hub");
export const HUB_URL = "";
