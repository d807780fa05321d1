import { assertEquals } from "@std/assert";
import project from "../deno.json" with { type: "json" };
import offline from "../offline.json" with { type: "json" };

Deno.test("offline.json has the packages of deno.json, and stand-ins for those of JSR alone", () => {
  const [npm, jsr] = ["npm:", "jsr:"].map((registry) =>
    Object.entries(project.imports).filter(([, target]) => target.startsWith(registry))
  );
  const targets = Object.entries(offline.imports);
  assertEquals(targets.filter(([, target]) => target.startsWith("npm:")), npm);
  const standIns = targets.filter(([, target]) => target.startsWith("./compat/")).map(([name]) => name);
  assertEquals(standIns.map((name) => name.split("/").slice(0, 2).join("/")), jsr.map(([name]) => name));
});
