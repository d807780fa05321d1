/** The look of the report: one column that a phone, a wide screen and paper hold alike; light and dark. */
export const reportStyle = `
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f6f7f9; --text: #1b1f24; --quiet: #5c6670; --line: #d9dee4;
  --train: #2f6fde; --evaluation: #d9622b; --good: #1a7f4b; --bad: #c0362c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --raised: #1d2228; --text: #e4e8ec; --quiet: #99a4af; --line: #343b44;
    --train: #74a5ff; --evaluation: #ff9a66; --good: #5fd08f; --bad: #ff8177;
  }
}
* { box-sizing: border-box; }
html { background: var(--ground); }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; color: var(--text);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
header p { margin: .25rem 0 0; color: var(--quiet); }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.2rem; }
h3 { margin: 0 0 .4rem; font-size: .95rem; }
.status { display: inline-block; margin-top: .75rem; padding: .1rem .65rem; border-radius: 1rem; border: 1px solid;
  font-size: .875rem; font-weight: 600; }
.status.good { color: var(--good); }
.status.bad { color: var(--bad); }
.remark { margin: .75rem 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.4rem, 1fr)); gap: .75rem; margin: 1.75rem 0 0; }
.tiles div { padding: .7rem .9rem .75rem; border-radius: .6rem; background: var(--raised); }
.tiles dt { color: var(--quiet); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.35; }
.tiles small { display: block; color: var(--quiet); font-size: .8rem; font-weight: 400; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { color: var(--quiet); font-size: .85rem; margin-top: .25rem; }
.narrow { display: none; }
.key { display: inline-block; margin-right: 1.25rem; }
.key i { display: inline-block; width: 1.2em; height: .22em; margin-right: .45em; border-radius: 1px; vertical-align: middle; }
.key .train { background: var(--train); }
.key .evaluation { background: var(--evaluation); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 1.5rem 1.25rem; margin-top: 1.75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--quiet); font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 500; white-space: nowrap; }
.compact { width: auto; }
.compact th, .compact td { padding-right: 2.5rem; }
tfoot th, tfoot td { border-bottom: 0; font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.best td, .best th { font-weight: 600; }
code, pre, .code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .86em; }
.code { overflow-wrap: anywhere; }
.pairs { display: grid; align-items: start; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); gap: 0 2.5rem; }
.pairs th { width: 9.5rem; color: var(--quiet); font-weight: 400; white-space: normal; }
.pairs td { overflow-wrap: anywhere; }
.sample { margin: 0 0 1.75rem; }
.prompt { margin: 0 0 .25rem; padding: .7rem .9rem; border-left: 3px solid var(--line); background: var(--raised); white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .9rem; border-radius: 0 .4rem .4rem 0; }
.sample th { width: 5.5rem; color: var(--quiet); font-weight: 400; }
.sample td { white-space: pre-wrap; overflow-wrap: anywhere; }
.sample tr.last td { color: var(--text); }
details summary { cursor: pointer; color: var(--quiet); font-size: .9rem; margin-top: .5rem; }
footer { margin-top: 3rem; color: var(--quiet); font-size: .85rem; }
@media (max-width: 38rem) {
  body { padding: 1.5rem 1rem 3rem; font-size: 15px; }
  h1 { font-size: 1.4rem; }
  h2 { margin-top: 2.25rem; }
  .wide { display: none; }
  .narrow { display: block; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles dd { font-size: 1.15rem; }
  .sample th { width: 4rem; }
  .pairs th { width: 8rem; }
  .compact th, .compact td { padding-right: 1.4rem; }
}
@media print {
  :root {
    --ground: #ffffff; --raised: #f6f7f9; --text: #000000; --quiet: #444c55; --line: #c5ccd3;
    --train: #1f5bc4; --evaluation: #b84a15; --good: #14663c; --bad: #a02a21;
  }
  @page { margin: 16mm 15mm; }
  body { padding: 0; max-width: none; font-size: 10pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .wide { display: block; }
  .narrow { display: none; }
  .figures { grid-template-columns: repeat(3, 1fr); gap: .75rem; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .scroll { overflow: visible; }
  .pairs { grid-template-columns: 1fr 1fr; gap: 0 8mm; }
  .pairs.one { grid-template-columns: 1fr; }
  .prompt { break-after: avoid; }
  h2 { break-after: avoid; margin-top: 1.5rem; }
  figure, tr, .tiles div, .prompt { break-inside: avoid; }
  details { display: none; }
}
`.trim();
