/** Options of an adapter that can't be, as rows of the table of bad inputs. */
import { adaptingProgram, tuningProgram } from "./bad_files.ts";

/** The rows. */
export const adapters = [
  {
    name: "A target that matches nothing",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_atn"] }`),
    sentence: "error: …c_atn…did you mean …c_attn…",
    code: 1,
  },
  {
    name: "A rank of 0",
    args: [],
    program: adaptingProgram(`{ r: 0, alpha: 8, targets: ["c_attn"] }`),
    sentence: "error: …r …0…",
    code: 1,
  },
  {
    name: "A negative rank",
    args: [],
    program: adaptingProgram(`{ r: -2, alpha: 8, targets: ["c_attn"] }`),
    sentence: "error: …r …-2…",
    code: 1,
  },
  {
    name: "A rank larger than the layer",
    args: [],
    program: adaptingProgram(`{ r: 17, alpha: 8, targets: ["c_attn"] }`),
    sentence: "error: …17…16…",
    code: 1,
  },
  {
    name: "An option of another method",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], feedforward: ["c_proj"] } as never`),
    sentence: "error: lora has no option feedforward",
    code: 1,
  },
  {
    name: "Targets of a method that is of the whole model",
    args: [],
    program: tuningProgram("prefix", `{ numVirtualTokens: 4, targets: ["c_attn"] } as never`),
    sentence: "error: prefix has no option targets",
    code: 1,
  },
  {
    name: "A prefix of another model's size",
    args: [],
    program: tuningProgram("prefix", `{ numVirtualTokens: 4, numLayers: 12 }`),
    sentence: "error: numLayers is 12, but it is … of this model: leave it out",
    code: 1,
  },
  {
    name: "A prompt that is to be merged",
    args: [],
    program: tuningProgram("prompt", `{ numVirtualTokens: 4 }`, "tuned.merge();"),
    sentence:
      'error: prompt on "prompt" can\'t be merged: embeddings in front of a text are no change of a weight; use ' +
      "the adapter beside its base",
    code: 1,
  },
  {
    name: "PEFT's name of an option",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], use_dora: true } as never`),
    sentence: "error: there is no option use_dora: it is called dora here",
    code: 1,
  },
  {
    name: "An option of PEFT's that is not supported",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], use_qalora: true } as never`),
    sentence: "error: the option use_qalora of PEFT is not supported: …",
    code: 1,
  },
  {
    name: "An invocation of no tokens",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], aloraInvocationTokens: [] }`),
    sentence: "error: aloraInvocationTokens is []: it takes the ids of at least one token, from 0 on",
    code: 1,
  },
  {
    name: "An initialisation that is not computed here",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], init: "mica" as never }`),
    sentence: 'error: init "mica": MiCA is not computed here: create the initial values with PEFT and load the folder',
    code: 1,
  },
  {
    name: "Everything excluded",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], exclude: /.*/ }`),
    sentence: "error: exclude leaves none of the … modules that targets names",
    code: 1,
  },
  {
    name: "A layer that does not exist",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], layers: [9] }`),
    sentence: "error: layers has 9, but what targets names is in layers 0…",
    code: 1,
  },
  {
    name: "A part that a projection does not have",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn[x]"] }`),
    sentence: 'error: target "c_attn[x]" matches no module of this model: did you mean "c_attn[…"?',
    code: 1,
  },
  {
    name: "A module that is adapted and trained in full",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn", "c_fc"], modulesToSave: ["c_fc"] }`),
    sentence: 'error: "h.0.mlp.c_fc" is in targets and, by modulesToSave, trained in full: name it in one of them',
    code: 1,
  },
  {
    name: "A token that the vocabulary does not have",
    args: [],
    program: adaptingProgram(`{ r: 4, alpha: 8, targets: ["c_attn"], trainableTokens: [100000] }`),
    sentence: 'error: trainableTokens of "wte" has 100000: it takes row numbers from 0 to …, each once',
    code: 1,
  },
];
