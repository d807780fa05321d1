/** Sizes as a person reads them, in powers of ten: `346 kB`, `3.8 MB`, `1.20 GB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

/** 1234567 as `1,234,567`. */
export const formatCount = (n: number): string => n.toLocaleString("en");

/** `1 row`, `1,234 rows`. */
export const countOf = (n: number, thing: string): string => `${formatCount(n)} ${thing}${n === 1 ? "" : "s"}`;

/** `0:07`, `12:30`, `1:02:03`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n: number) => String(n).padStart(2, "0");
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
