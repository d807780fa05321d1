/** A model's way of writing conversations: a template of jinja, rendered as transformers does (`chat_template_utils.py`). */
import { parse, tokenize } from "@huggingface/jinja";
import { generationCall, run, type Written } from "./interpreter.ts";
import { print } from "./printing.ts";
import { Callable, itemsOf, Namespace, numberOf, TemplateError, toValue, Tuple, type Value } from "./values.ts";
import { strftime } from "./strftime.ts";

/** Renders a template with variables. */
export type ChatTemplate = (variables: Readonly<Record<string, unknown>>) => Written;

/** The most items of `range`, as in jinja2's sandbox. */
const mostRange = 100_000;

/** Reads a template. Throws an Error that says what is wrong where it is none. */
export function readChatTemplate(source: string): ChatTemplate {
  const marked = source.replaceAll(
    /\{%(-?)\s*(end)?generation\s*(-?)%\}/g,
    (_, before, end, after) => `{%${before} ${end ? "endcall" : `call ${generationCall}()`} ${after}%}`,
  );
  const program = parse(tokenize(marked, { trim_blocks: true, lstrip_blocks: true }));
  return (variables) => {
    const values = Object.entries(variables).map(([name, value]): [string, Value] => [name, toValue(value)]);
    return run(program, new Map([...globals(), ...values]));
  };
}

function globals(): [string, Value][] {
  const all = {
    range: new Callable("range", ({ list }) => range(list.map((n) => numberOf(n) ?? 0))),
    namespace: new Callable("namespace", ({ list, named }) => {
      const made = new Namespace();
      for (const map of list) {
        if (map instanceof Map) { for (const [key, value] of map) made.attributes.set(print(key), value); }
      }
      for (const [key, value] of named) made.attributes.set(key, value);
      return made;
    }),
    dict: new Callable("dict", ({ list: [first], named }) => {
      const start = first instanceof Map ? [...first] : first === undefined ? [] : itemsOf(first).map(pairOf);
      return new Map<Value, Value>([...start, ...named]);
    }),
    joiner: new Callable("joiner", ({ list: [separator = ", "] }) => {
      let used = false;
      return new Callable("joiner", () => {
        const found = used ? separator : "";
        used = true;
        return found;
      });
    }),
    raise_exception: new Callable("raise_exception", ({ list: [message = ""] }) => {
      throw new TemplateError(print(message));
    }),
    strftime_now: new Callable("strftime_now", ({ list: [format = ""] }) => strftime(new Date(), print(format))),
  };
  return Object.entries(all);
}

function pairOf(pair: Value): [Value, Value] {
  const [key, value] = pair instanceof Tuple ? pair.items : itemsOf(pair);
  return [key, value];
}

function range(given: readonly number[]): Value {
  const [start, stop, step = 1] = given.length === 1 ? [0, given[0]] : given;
  if (step === 0) throw new TemplateError("range can't have the step 0");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > mostRange) throw new TemplateError(`range of ${length} items is too long: ${mostRange} are allowed`);
  return Array.from({ length }, (_, i) => start + i * step);
}
