/** One folder of golden numbers, as its case.json describes it. */
import { AssertionError } from "@std/assert";
import { formatAval, sameShape } from "../../core/aval.ts";
import type { HostTensor } from "../../core/tensor.ts";
import { pathKind } from "../../models/load/files/byte_source.ts";
import { openSafetensors } from "../../models/load/safetensors/safetensors.ts";

/** A case's description. Keys that only one kind of case has are read by that kind. */
export interface GoldenCase {
  readonly id: string;
  readonly folder: string;
  /** The folder that paths in case.json (`base`) are relative to. */
  readonly root: string;
  readonly info: Record<string, any>;
  /** The folder of the model that case.json names as its base, or null where it names none or none is there. */
  readonly base: string | null;
  /** Whether the case has this file or folder. */
  has(file: string): boolean;
  json(file: string): any;
  /** All tensors of one of its safetensors files. */
  tensors(file: string): Map<string, HostTensor>;
  /** Relative tolerances: of values, and of gradients and the ends of long traces. */
  readonly rtol: { readonly values: number; readonly long: number };
}

/** Opens a case's folder. */
export function goldenCase(root: string, id: string): GoldenCase {
  const folder = `${root}/${id}`;
  const json = (file: string) => JSON.parse(Deno.readTextFileSync(`${folder}/${file}`));
  const info = pathKind(`${folder}/case.json`) === null ? {} : json("case.json");
  // Beside the case; else the case's folder may have been put below the others.
  const places = typeof info.base === "string" ? [`${root}/${info.base}`, `${root}/../${info.base}`] : [];
  return {
    id,
    folder,
    root,
    info,
    base: places.find((place) => pathKind(place) === "folder") ?? null,
    json,
    has: (file) => pathKind(`${folder}/${file}`) !== null,
    tensors(file) {
      using source = openSafetensors(`${folder}/${file}`);
      return new Map(source.names.map((name) => [name, source.read(name)]));
    },
    rtol: tolerances(String(info.tolerance ?? "")),
  };
}

/** The cases under a folder: itself when it holds a case.json, else each folder in it, even one that is none. */
export function casesUnder(path: string): GoldenCase[] {
  const place = path.replace(/[/\\]+$/, "");
  if (pathKind(`${place}/case.json`) !== null) {
    const at = Math.max(place.lastIndexOf("/"), place.lastIndexOf("\\"));
    return [goldenCase(at < 0 ? "." : place.slice(0, at), place.slice(at + 1))];
  }
  return [...Deno.readDirSync(place)].filter((entry) => entry.isDirectory).map((entry) => entry.name).sort()
    .map((id) => goldenCase(place, id));
}

/** A case says `rtol 1e-4 is comfortable … (gradients and long traces 5e-4)`; these two are also the rule of the whole set. */
function tolerances(text: string): GoldenCase["rtol"] {
  const find = (pattern: RegExp, otherwise: number) => Number(pattern.exec(text)?.[1] ?? otherwise);
  return { values: find(/rtol ([\d.e-]+) is comfortable/, 1e-4), long: find(/long traces ([\d.e-]+)\)/, 5e-4) };
}

/** Fails unless max|actual - expected| ≤ rtol·max|expected| + 1e-7, for arrays of one shape or for two numbers. */
export function assertNear(
  what: string,
  actual: HostTensor | number,
  expected: HostTensor | number,
  rtol: number,
): void {
  const [a, b] = [actual, expected].map((x) => typeof x === "number" ? { shape: [], dtype: "f32", data: [x] } : x);
  if (!sameShape(a.shape, b.shape)) {
    throw new AssertionError(`${what} is ${formatAval(a as HostTensor)}, expected ${formatAval(b as HostTensor)}`);
  }
  let [error, size, at] = [0, 0, 0];
  for (let i = 0; i < b.data.length; i++) {
    size = Math.max(size, Math.abs(b.data[i]));
    const difference = Math.abs(a.data[i] - b.data[i]);
    if (!(difference <= error)) [error, at] = [difference, i];
  }
  const bound = rtol * size + 1e-7;
  if (!(error <= bound)) {
    throw new AssertionError(
      `${what} differs by ${error} at element ${at} (${a.data[at]}, expected ${b.data[at]}), where ${bound} is allowed`,
    );
  }
}
