/** Gives `use` a folder of its own, which is removed when it, or the promise that it returns, is done. */
export function inFolder<T>(use: (folder: string) => T): T {
  const folder = Deno.makeTempDirSync();
  const remove = () => Deno.removeSync(folder, { recursive: true });
  let result: T;
  try {
    result = use(folder);
  } catch (error) {
    remove();
    throw error;
  }
  if (result instanceof Promise) return result.finally(remove) as T;
  remove();
  return result;
}
