/** In place of what only Deno has and the client of Hugging Face's hub in the bundle for pages, which fetch a model from their site. */

const refuse = (what: string) => (): never => {
  throw new Error(`A page can't ${what}: do this from Deno.`);
};

export const createHash = refuse("hash files");
export const fstatSync = refuse("look at files");
export const constrainedMemory = refuse("look at the machine");
export const modelInfo = refuse("ask the hub");
export const HUB_URL = "";
