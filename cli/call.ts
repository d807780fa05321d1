/** How the command line was called, so that what it advises can be typed in the same form. */
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/** The variable in which the launcher says how it was called: `./task lowrank`. */
export const callVariable = "LOWRANK_CALL";

const permissions = ["read", "write", "net", "env", "run", "ffi", "sys"] as const;
const isGranted = (permission: Deno.PermissionDescriptor) => Deno.permissions.querySync(permission).state === "granted";

/** `./task lowrank`, `deno task lowrank`, `deno run -A cli.ts`, or as an installed program `lowrank`. */
function callOf(): string {
  const given = isGranted({ name: "env", variable: callVariable }) ? Deno.env.get(callVariable) : undefined;
  if (given) return given;
  const isSource = Deno.mainModule.startsWith("file:") && Deno.mainModule.endsWith("/cli.ts");
  if (!isSource || Deno.build.standalone) return "lowrank";
  const path = fileURLToPath(Deno.mainModule), near = relative(Deno.cwd(), path);
  return `deno run ${permissions.every((name) => isGranted({ name })) ? "-A" : "…"} ${
    near.startsWith("..") ? path : near
  }`;
}

/** A text in which commands (`lowrank train …`) stand as the user would call them. */
export function asCalled(text: string, commands: readonly string[]): string {
  const command = new RegExp(`(?<![\\w/.-])lowrank (?=(?:${commands.join("|")})\\b|--help)`, "g");
  return text.replace(command, () => `${callOf()} `);
}
