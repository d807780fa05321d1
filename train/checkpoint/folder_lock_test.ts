import { assertEquals, assertThrows } from "@std/assert";
import { FileError, OptionError } from "../../core/errors.ts";
import { lockFolder } from "./folder_lock.ts";

Deno.test("a folder is held by one run at a time, and by nobody once that one died", async () => {
  const folder = await Deno.makeTempDir();
  const program = `import { lockFolder } from "${new URL("./folder_lock.ts", import.meta.url).href}";
    using _lock = lockFolder(${JSON.stringify(folder)});
    console.log("held");
    await new Promise((done) => setTimeout(done, 600_000));`;
  try {
    await Deno.writeTextFile(`${folder}/program.ts`, program);
    const child = new Deno.Command("deno", {
      args: ["run", "--quiet", "--no-lock", "--allow-read", `--allow-write=${folder}`, `${folder}/program.ts`],
      stdout: "piped",
    }).spawn();
    for await (const _ of child.stdout) break;
    assertThrows(() => lockFolder(folder), OptionError, "another run is writing into");
    child.kill("SIGKILL");
    await child.status;
    using held = lockFolder(folder);
    assertEquals(typeof held, "object");
    assertThrows(() => lockFolder(`${folder}/absent`), FileError, "can't be held for this run");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
