// deno run --allow-read --allow-write=out docs/recipes/style.ts FOLDER
/** The texts of a folder (.txt, .md) as data that `lowrank train` reads: the last tenth of each (a paragraph at least) is held out. */
const [folder] = Deno.args;
if (folder === undefined) throw new Error("give the folder with your texts");
const texts = [...Deno.readDirSync(folder)].filter(({ name }) => /\.(txt|md)$/.test(name)).map(({ name }) => name)
  .sort()
  .map((name) => Deno.readTextFileSync(`${folder}/${name}`).trim());
const paragraphs = texts.map((text) => text.split(/\n{2,}/));
const cut = (all: readonly string[]) => all.length - Math.max(1, Math.round(all.length / 10));
Deno.mkdirSync("out/style", { recursive: true });
Deno.writeTextFileSync(
  "out/style/train.txt",
  paragraphs.map((all) => all.slice(0, cut(all)).join("\n\n")).join("\n\n"),
);
Deno.writeTextFileSync("out/style/valid.txt", paragraphs.map((all) => all.slice(cut(all)).join("\n\n")).join("\n\n"));
console.log(`out/style: ${texts.length} texts, a tenth of each held out`);
