/// <reference lib="dom" />
/** The page: shows what the engine reports, and gives it orders. */
import uPlot from "uplot";
import type { Order, Report } from "./messages.ts";
import { parseRows } from "./rows.ts";

const find = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const [status, progress, loss, download] = [
  find("status"),
  find<HTMLProgressElement>("progress"),
  find("loss"),
  find("download"),
];
const buttons = ["train", "ask", "own"].map((id) => find<HTMLButtonElement>(id));
const stop = find<HTMLButtonElement>("stop");
const letter = find<HTMLTextAreaElement>("letter");
const sample = "Hello, Marta Klein here from Bremen. I ordered a red kettle and it arrived broken.";
letter.value = sample;
// ?device=cpu&steps=20 sets the form, for a link.
const query = new URLSearchParams(location.search);
for (const [id, value] of query) if (find(id)) find<HTMLInputElement>(id).value = value;

let engine: Worker;
let opened = false;
let losses: number[] = [];
let began = 0;
/** The first of the rows that it learned last: what it is asked when it is done. */
let firstRow = "";
const send = (order: Order) => engine.postMessage(order);

function say(text: string, failed = false): void {
  status.textContent = text;
  status.classList.toggle("failed", failed);
}

function busy(on: boolean, training = false): void {
  for (const button of buttons) button.disabled = on;
  stop.hidden = progress.hidden = !training;
}

/** Restarts the engine on the chosen device. */
function open(): void {
  engine?.terminate();
  opened = false;
  busy(true);
  engine = new Worker("engine.js", { type: "module" });
  engine.onmessage = ({ data }: MessageEvent<Report>) => show(data);
  engine.onerror = (event) =>
    show({ kind: "failed", message: event.message ?? "The engine could not be loaded: load the page again" });
  const device = find<HTMLSelectElement>("device").value as "auto";
  send({ kind: "open", device, model: new URL("letters-base", location.href).href });
}

let device = "";
function show(report: Report): void {
  switch (report.kind) {
    case "opened":
      opened = true;
      device = `${report.device}: ${report.reason}`;
      say(device);
      return busy(false);
    case "doing":
      return say(`${report.what} …`);
    case "score":
      find(report.when).textContent = `${report.score.values}/${report.score.of}`;
      return;
    case "step":
      return step(report);
    case "trained": {
      say(`${device}. ${losses.length} steps in ${report.seconds.toFixed(0)} s.`);
      (download as HTMLAnchorElement).href = URL.createObjectURL(new Blob([report.adapter as BlobPart]));
      find("downloaded").textContent = `${report.trainable.toLocaleString("en")} numbers, ${
        Math.round(report.adapter.length / 1000)
      } kB, for PEFT`;
      download.hidden = false;
      busy(false);
      return ask();
    }
    case "answer":
      find("base").textContent = report.base.trim() || "(nothing)";
      find("tuned").textContent = report.tuned === null ? "train it first" : report.tuned.trim() || "(nothing)";
      return busy(false);
    case "failed":
      say(report.message, true);
      return busy(!opened); // without a device there is nothing to do but to choose another
  }
}

function step({ step, steps, loss: value }: Report & { kind: "step" }): void {
  if (step === 1) began = performance.now();
  losses.push(value);
  progress.value = step / steps;
  loss.textContent = value.toFixed(2);
  const left = (performance.now() - began) / Math.max(1, step - 1) * (steps - step) / 1000;
  say(`step ${step} of ${steps}${step > 1 ? `, ${left.toFixed(0)} s left` : ""} · ${device}`);
  curve.classList.remove("empty");
  plot.setData([losses.map((_, i) => i + 1), losses]);
}

function begin(order: Order & { kind: "train" }): void {
  losses = [];
  download.hidden = true;
  find("downloaded").textContent = "";
  if (order.rows) {
    find("after").textContent = "—"; // what it learns now are no letters
    firstRow = letter.value = order.rows[0].prompt;
  } else if (letter.value === firstRow) letter.value = sample;
  busy(true, true);
  if (status.getBoundingClientRect().top < 0) find("train-title").scrollIntoView({ behavior: "smooth" });
  send(order);
}

function ask(): void {
  busy(true);
  send({ kind: "ask", text: letter.value });
}

const curve = find("curve");
const ink = (name: string) => () => getComputedStyle(document.documentElement).getPropertyValue(name);
const colour = (name: string) => {
  // A canvas knows no light-dark(): let the page resolve it.
  const probe = document.createElement("span");
  probe.style.color = ink(name)();
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
};
const axis = {
  stroke: () => colour("--dim"),
  grid: { stroke: () => colour("--line"), width: 1 },
  ticks: { show: false },
};
const plot = new uPlot(
  {
    width: curve.clientWidth,
    height: 220,
    scales: { x: { time: false } },
    legend: { show: false },
    cursor: { show: false },
    axes: [{ ...axis, label: "step", labelSize: 18, size: 34, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }, {
      ...axis,
      label: "loss",
      labelSize: 18,
      size: 44,
    }],
    series: [{}, { stroke: () => colour("--accent"), width: 2 }],
  },
  [[], []],
  curve,
);
new ResizeObserver(() => plot.setSize({ width: curve.clientWidth, height: 220 })).observe(curve);

const steps = () => Math.max(1, Math.round(Number(find<HTMLInputElement>("steps").value)) || 1);
find("device").onchange = open;
find("train").onclick = () => begin({ kind: "train", steps: steps() });
stop.onclick = () => send({ kind: "stop" });
find("ask").onclick = ask;
find("own").onclick = () => {
  const problem = find("problem");
  problem.textContent = "";
  try {
    begin({ kind: "train", steps: steps(), rows: parseRows(find<HTMLTextAreaElement>("rows").value) });
  } catch (error) {
    problem.textContent = (error as Error).message;
  }
};
open();
