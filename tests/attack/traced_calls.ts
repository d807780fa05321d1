/** The calls of the system that a run makes on its folder, as strace logs them. */

/** Not `close`: where that fails, for files it is ignored and for folders Rust's library ends the process. */
export const calls: readonly string[] = [
  "openat",
  "write",
  "fsync",
  "rename",
  "mkdir",
  "unlink",
  "unlinkat",
  "getdents64",
  "ftruncate",
];
/** One call of a run: the how-manieth of its name in its thread, and what it is for. */
export interface Call {
  readonly name: string;
  readonly nth: number;
  readonly role: string;
}

/** The calls that the run's own thread makes on its folder, in a run that nothing disturbs. */
export function callsOn(folder: string, log: string): Call[] {
  const main = log.split("\n").find((line) => line.includes(folder))!.split(" ")[0];
  const counts = new Map<string, number>();
  const found: Call[] = [];
  for (const line of log.split("\n")) {
    const [, thread, name] = line.match(/^(\d+) +(\w+)\(/) ?? [];
    if (thread !== main) continue;
    counts.set(name, (counts.get(name) ?? 0) + 1);
    const at = line.indexOf(folder);
    if (at < 0 || !calls.includes(name)) continue;
    const path = line.slice(at + folder.length).match(/^[^">]*/)![0];
    const role = `${name} ${path.replace(/[0-9a-f]{12}/g, "…").replace(/\d+/g, "#")}`;
    found.push({ name, nth: counts.get(name)!, role });
  }
  return found;
}
