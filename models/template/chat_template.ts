/** A model's way of writing conversations: a template of jinja, rendered as transformers does (`chat_template_utils.py`). */
import { parse, tokenize } from "@huggingface/jinja";
import { testFilter } from "./filters.ts";
import { generationCall, run, type Written } from "./interpreter.ts";
import { print } from "./printing.ts";
import { Callable, itemsOf, Namespace, numberOf, TemplateError, toValue, Tuple, type Value } from "./values.ts";
import { strftime } from "./strftime.ts";

/** Renders a template with variables. */
export type ChatTemplate = (variables: Readonly<Record<string, unknown>>) => Written;

/** The most items of `range`, as in jinja2's sandbox. */
const maxRangeLength = 100_000;

/** Reads a template. Throws an Error that says what is wrong with an invalid one. */
export function readChatTemplate(source: string): ChatTemplate {
  const marked = source.replaceAll(
    /\{%(-?)\s*(end)?generation\s*(-?)%\}/g,
    (_, before, end, after) => `{%${before} ${end ? "endcall" : `call ${generationCall}()`} ${after}%}`,
  );
  const program = parse(testsAsFilters(tokenize(marked, { trim_blocks: true, lstrip_blocks: true })));
  return (variables) => {
    const values = Object.entries(variables).map(([name, value]): [string, Value] => [name, toValue(value)]);
    return run(program, new Map([...globals(), ...values]));
  };
}

type Token = ReturnType<typeof tokenize>[number];

/** Words that end an expression, and so are no argument of a test. */
const ends = new Set(["and", "or", "else", "if", "is", "in", "not"]);

/**
 * The tokens with tests that have arguments, which the parser does not know, as filters that do the same:
 * `is divisibleby(2)` and `is divisibleby 2`.
 */
function testsAsFilters(tokens: readonly Token[]): Token[] {
  const found: Token[] = [];
  const token = (value: string, type: string) => ({ value, type }) as Token;
  const closing = (at: number): number => {
    let depth = 0;
    do {
      if ("([{".includes(tokens[at].value) && tokens[at].type.startsWith("Open")) depth++;
      if (")]}".includes(tokens[at].value) && tokens[at].type.startsWith("Close")) depth--;
      at++;
    } while (depth > 0 && at < tokens.length);
    return at;
  };
  for (let i = 0; i < tokens.length; i++) {
    const { value, type } = tokens[i];
    const negates = tokens[i + 1]?.value === "not", name = tokens[i + (negates ? 2 : 1)];
    const next = i + (negates ? 3 : 2), argument = tokens[next];
    const takes = argument !== undefined && (
      ["OpenParen", "OpenSquareBracket", "StringLiteral", "NumericLiteral"].includes(argument.type) ||
      (argument.type === "Identifier" && !ends.has(argument.value))
    );
    if (type !== "Identifier" || value !== "is" || name?.type !== "Identifier" || !takes) {
      found.push(tokens[i]);
      continue;
    }
    const end = closing(next), inner = testsAsFilters(tokens.slice(next, end));
    found.push(token("|", "Pipe"), token(testFilter(name.value, negates), "Identifier"));
    found.push(
      ...argument.type === "OpenParen" ? inner : [token("(", "OpenParen"), ...inner, token(")", "CloseParen")],
    );
    i = end - 1;
  }
  return found;
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
  if (length > maxRangeLength) {
    throw new TemplateError(`range of ${length} items is too long: ${maxRangeLength} are allowed`);
  }
  return Array.from({ length }, (_, i) => start + i * step);
}
