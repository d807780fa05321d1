import { assert, assertThrows } from "@std/assert";
import { FileError } from "../../../core/errors.ts";
import { writeFileAtomic } from "./atomic_file.ts";
Deno.test({ name: "a pipe is not replaced by a file", ignore: Deno.build.os === "windows" }, async () => {
  const folder = await Deno.makeTempDir();
  try {
    const { success } = await new Deno.Command("sh", { args: ["-c", `mkfifo "${folder}/pipe"`] }).output();
    assert(success);
    assertThrows(() => writeFileAtomic(`${folder}/pipe`, []), FileError, "it is a device, a pipe or a socket");
    assert(Deno.lstatSync(`${folder}/pipe`).isFifo);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
