/** What the operating system answers where a file or a stream can't be used, in words that say what helps. */

/** What is known to help, by the system's own words: Deno has a code for only some of them. */
const remedies: readonly (readonly [RegExp, string])[] = [
  [/no space left|disk is full|not enough space/i, "the disk is full; make room"],
  [/quota/i, "your share of the disk is used up (quota); make room"],
  [/read-only file system/i, "the disk is read-only; choose another folder"],
  [
    /input\/output error|remote i\/o/i,
    "the disk or the terminal answers with an error (EIO); check it, or choose another",
  ],
  [/stale/i, "the network's disk has lost it (stale handle); mount it again, or choose another folder"],
  [/too many open files/i, "too many files are open; raise the limit (ulimit -n)"],
  [/file too large/i, "files may not be so large there; raise the limit (ulimit -f), or choose another disk"],
  [/file name too long/i, "its name is too long; choose a shorter one"],
  [/symbolic links|filesystem ?loop/i, "its links go round in a circle; choose another path"],
  [/broken pipe/i, "its reader has ended"],
];

/** Why the system refused what was to be done with a file or a stream, without an end; null where it was not the system. */
export function explainOsError(error: unknown): string | null {
  if (!(error instanceof Error)) return null;
  const { code } = error as { code?: unknown };
  const fromSystem = /\(os error \d+\)/.test(error.message) || (typeof code === "string" && /^E[A-Z\d]+$/.test(code));
  // A path with a NUL in it never reaches the system.
  if (/nul byte|null byte/i.test(error.message)) return "its name holds a NUL, which no path may; choose another";
  if (!fromSystem) return null;
  if (error instanceof Deno.errors.PermissionDenied) return "the system does not allow it; check its permissions";
  const words = error.message.replace(/ ?\(os error \d+\).*/s, "");
  return remedies.find(([pattern]) => pattern.test(words))?.[1] ?? `the system answers "${words}"`;
}
