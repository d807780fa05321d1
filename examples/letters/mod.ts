/** The example task: letters of customers, each answered with one JSON object; drawn, learned and scored. */
export type { LetterValues } from "./letters.ts";
export { systemPrompt as letterInstruction } from "./real.ts";
export { describeScore, type Score, scoreAnswers, sideBySide } from "./score.ts";
export {
  fileTask,
  lettersTask,
  ownLetter,
  realLettersTask,
  type Task,
  type TaskSettings,
  type TestRow,
} from "./tasks.ts";
