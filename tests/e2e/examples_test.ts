/** Every program in examples/ runs, with the permissions that its first line names and no others. */
import { assert, assertMatch } from "@std/assert";

for (const { name } of Deno.readDirSync("examples")) {
  if (!name.endsWith(".ts")) continue;
  Deno.test(`examples/${name} runs as its first line says`, async () => {
    const [first] = Deno.readTextFileSync(`examples/${name}`).split("\n");
    assertMatch(first, new RegExp(`^// deno run (--allow-[^ ]+ )*examples/${name}$`));
    assert(!first.includes("--allow-all"), first);
    const [, , ...args] = first.split(" ").slice(1);
    const { success, stdout, stderr } = await new Deno.Command("deno", {
      args: ["run", "--quiet", "--no-prompt", "--import-map=offline.json", ...args],
      env: { NO_COLOR: "1" },
    }).output();
    assert(success, new TextDecoder().decode(stderr));
    assert(stdout.length > 0, "it prints something");
  });
}
