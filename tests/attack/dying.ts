/** A process that ends between two calls of the system, without a process. */

/** What changes files. */
const calls = ["renameSync", "removeSync", "mkdirSync", "openSync"] as const;

/**
 * Runs `work`, in which all calls that change files after the first few fail, as if the process were dead; whether it came to
 * its end.
 */
export function dyingAfter(few: number, work: () => void): boolean {
  const deno = Deno as unknown as Record<string, (...args: unknown[]) => unknown>;
  const real = calls.map((name) => [name, deno[name]] as const);
  let made = 0;
  for (const [name, call] of real) {
    deno[name] = (...args) => {
      if (++made > few) throw new Dead();
      return call(...args);
    };
  }
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof Dead) return false;
    throw error;
  } finally {
    for (const [name, call] of real) deno[name] = call;
  }
}

class Dead extends Error {}
