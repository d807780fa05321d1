/**
 * A run as a picture for the README: `deno run --allow-read --allow-write=docs tools/terminal_picture.ts RUN.txt docs/run.svg`.
 * Lines are wrapped at 96 columns; of a progress bar that drew itself over and over, the last state is kept.
 */
const [from, to] = Deno.args;
const columns = 96, size = 13, pitch = 18, advance = 7.82, margin = 18;

const escapes = new RegExp(String.raw`${String.fromCharCode(27)}\[[0-9;]*[A-Za-z]`, "g");
const text = (await Deno.readTextFile(from)).replace(escapes, "");
const lines = text.trimEnd().split("\n").map((line) => line.split("\r").findLast((part) => part.trim() !== "") ?? "");

const wrapped = lines.flatMap((line) => {
  const parts = [];
  for (let rest = line;; rest = "    " + rest.slice(columns)) {
    parts.push(rest.slice(0, columns));
    if (rest.length <= columns) return parts;
  }
});

const escape = (line: string) => line.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const colour = (line: string) =>
  line.startsWith("$") ? "#7ee787" : /^(before|after|trainable)/.test(line) ? "#ffffff" : "#c9d1d9";
const width = Math.ceil(columns * advance + 2 * margin), height = wrapped.length * pitch + 2 * margin;
const rows = wrapped.map((line, i) =>
  `<text x="${margin}" y="${margin + (i + 0.75) * pitch}" fill="${colour(line)}" xml:space="preserve">${
    escape(line)
  }</text>`
);
await Deno.writeTextFile(
  to,
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="${size}">
${rows.join("\n")}
</g>
</svg>
`,
);
