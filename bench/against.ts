/**
 * Who is faster? Each command is a process that says `ready`, then does its work once for each line it reads and answers
 * with the milliseconds. They take turns in one run, A B C A B C …: medians, and medians of the ratios to the first.
 *
 * `deno run --allow-run bench/against.ts ROUNDS "COMMAND A" "COMMAND B" …`; bench/README.md has the commands.
 */
import { median, row } from "./alternate.ts";
import { type Contender, startContender } from "./contender.ts";

const [rounds, ...commands] = Deno.args;
if (!(Number(rounds) >= 1) || commands.length === 0) {
  console.error('error: give a number of rounds and commands: against.ts 7 "COMMAND A" "COMMAND B"');
  Deno.exit(2);
}

const contenders: Contender[] = [];
for (const command of commands) {
  const [program, ...args] = command.split(" ");
  contenders.push(await startContender(program, args));
}
/** A round; before each turn a pause, in which the others' threads stop spinning. */
async function round(): Promise<number[]> {
  const times: number[] = [];
  for (const { sample } of contenders) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    times.push(await sample());
  }
  return times;
}
for (let i = 0; i < 2; i++) await round();
const taken: number[][] = [];
for (let i = 0; i < Number(rounds); i++) taken.push(await round());
console.log(row(["", "median ms", "least ms", "x first", "speed"], [2, 10, 10, 8, 8]));
commands.forEach((command, i) => {
  const times = taken.map((t) => t[i]);
  const ratio = median(taken.map((t) => t[i] / t[0]));
  const cells = ["ABCDEFGH"[i], median(times).toFixed(1), Math.min(...times).toFixed(1)];
  console.log(row([...cells, ratio.toFixed(3), (1 / ratio).toFixed(3)], [2, 10, 10, 8, 8]), command);
});
for (const contender of contenders) contender.stop();
