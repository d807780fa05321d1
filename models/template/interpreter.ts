/**
 * Runs a template that `@huggingface/jinja` has parsed, with the meaning that Python's jinja2 gives it. Values can't be changed
 * and nothing outside can be reached, as in jinja2's immutable sandbox.
 */
import { applyFilter, applyTest, type Context } from "./filters.ts";
import { attributeOf, itemOf, maxTemplateSize, negate, operate, sliceOf } from "./operators.ts";
import { print } from "./printing.ts";
import {
  type Arguments,
  Attributes,
  Callable,
  equal,
  Float,
  isMap,
  itemsOf,
  kindOf,
  Namespace,
  orElse,
  TemplateError,
  truth,
  Tuple,
  Undefined,
  type Value,
} from "./values.ts";

/** A node of the parsed template. */
// deno-lint-ignore no-explicit-any
export type Node = any;

/** The most nodes that a template may evaluate, with what it makes counted: an item is a step, and so are 64 characters. */
const maxSteps = 3_000_000;

/** The call that marks what the assistant says: `{% generation %}` becomes `{% call … %}`. */
export const generationCall = "__generation__";

/** Variables, those of the blocks around it behind them. */
class Scope {
  readonly #own = new Map<string, Value>();
  constructor(readonly outer: Scope | null) {}

  get(name: string): Value | undefined {
    const own = this.#own.get(name);
    return own === undefined ? this.outer?.get(name) : own;
  }

  set(name: string, value: Value): void {
    this.#own.set(name, value);
  }
}

class Break extends Error {}
class Continue extends Error {}

/** A text that grows. */
class Output {
  readonly #pieces: string[] = [];
  length = 0;

  /** Positions are those of the whole text where `isWhole`. */
  constructor(readonly isWhole: boolean) {}

  put(piece: string): void {
    this.#pieces.push(piece);
    this.length += piece.length;
    if (this.length > maxTemplateSize) throw new TemplateError(`it writes more than ${maxTemplateSize} characters`);
  }

  text(): string {
    return this.#pieces.join("");
  }
}

/** The output of a template, and which parts of it are the assistant's, as far as the template marks them. */
export interface Written {
  readonly text: string;
  readonly generated: readonly { readonly start: number; readonly end: number }[];
}

/** Runs a parsed template. */
export function run(program: Node, globals: ReadonlyMap<string, Value>): Written {
  const scope = new Scope(null);
  for (const [name, value] of globals) scope.set(name, value);
  const interpreter = new Interpreter();
  const output = new Output(true);
  interpreter.block(program.body, new Scope(scope), output);
  return { text: output.text(), generated: interpreter.generated };
}

class Interpreter implements Context {
  readonly generated: { start: number; end: number }[] = [];
  #steps = 0;

  attribute(value: Value, name: string): Value {
    return attributeOf(value, name);
  }

  filter(name: string, value: Value, args: Arguments): Value {
    return applyFilter(name, value, args, this);
  }

  test(name: string, value: Value, args: Arguments): boolean {
    return applyTest(name, value, args);
  }

  /** Runs statements. */
  block(nodes: readonly Node[], scope: Scope, out: Output): void {
    for (const node of nodes) this.#statement(node, scope, out);
  }

  #captured(nodes: readonly Node[], scope: Scope): string {
    const out = new Output(false);
    this.block(nodes, scope, out);
    return out.text();
  }

  #count(steps = 1): void {
    this.#steps += steps;
    if (this.#steps > maxSteps) throw new TemplateError(`it takes more than ${maxSteps} steps`);
  }

  #statement(node: Node, scope: Scope, out: Output): void {
    this.#count();
    switch (node.type) {
      case "Comment":
        return;
      case "If":
        return this.block(truth(this.#value(node.test, scope)) ? node.body : node.alternate, scope, out);
      case "For":
        return this.#loop(node, scope, out);
      case "Set": {
        const value = node.value ? this.#value(node.value, scope) : this.#captured(node.body, new Scope(scope));
        return this.#assign(node.assignee, value, scope);
      }
      case "Macro":
        return scope.set(node.name.value, this.#macro(node.name.value, node.args, node.body, scope));
      case "CallStatement":
        return this.#callBlock(node, scope, out);
      case "FilterStatement":
        return out.put(print(this.#filtered(node.filter, this.#captured(node.body, new Scope(scope)), scope)));
      case "Break":
        throw new Break();
      case "Continue":
        throw new Continue();
      default:
        out.put(print(this.#value(node, scope)));
    }
  }

  #assign(target: Node, value: Value, scope: Scope): void {
    if (target.type === "Identifier") return scope.set(target.value, value);
    if (target.type === "TupleLiteral") {
      const items = itemsOf(value);
      if (items.length !== target.value.length) {
        throw new TemplateError(`${items.length} values are given to ${target.value.length} names`);
      }
      return target.value.forEach((name: Node, i: number) => this.#assign(name, items[i], scope));
    }
    const object = target.type === "MemberExpression" && !target.computed ? this.#value(target.object, scope) : null;
    if (!(object instanceof Namespace)) throw new TemplateError("only names and attributes of a namespace can be set");
    object.attributes.set(target.property.value, value);
  }

  #loop(node: Node, scope: Scope, out: Output): void {
    const select = node.iterable.type === "SelectExpression" ? node.iterable : null;
    const all = itemsOf(this.#value(select ? select.lhs : node.iterable, scope));
    const inside = (item: Value) => {
      const own = new Scope(scope);
      this.#assign(node.loopvar, item, own);
      return own;
    };
    const items = select ? all.filter((item) => truth(this.#value(select.test, inside(item)))) : all;
    if (items.length === 0) return this.block(node.defaultBlock, scope, out);
    const changed: { last?: Tuple } = {};
    for (const [i, item] of items.entries()) {
      this.#count();
      const own = inside(item);
      own.set("loop", loopAt(items, i, changed));
      try {
        this.block(node.body, own, out);
      } catch (end) {
        if (end instanceof Continue) continue;
        if (end instanceof Break) return;
        throw end;
      }
    }
  }

  #macro(name: string, parameters: readonly Node[], body: readonly Node[], scope: Scope): Callable {
    return new Callable(name, ({ list, named }) => {
      const own = new Scope(scope);
      const given = new Map(named);
      parameters.forEach((parameter, i) => {
        const key = parameter.type === "KeywordArgumentExpression" ? parameter.key.value : parameter.value;
        const value = list[i] === undefined ? given.get(key) : list[i];
        given.delete(key);
        const absent = () => parameter.value?.type ? this.#value(parameter.value, own) : new Undefined(key);
        own.set(key, value === undefined ? absent() : value);
      });
      const caller = given.get("caller");
      if (caller !== undefined) own.set("caller", caller);
      given.delete("caller");
      own.set("varargs", new Tuple(list.slice(parameters.length)));
      own.set("kwargs", given);
      if (list.length > parameters.length && !mentions(body, "varargs")) {
        throw new TemplateError(`the macro ${name} takes ${parameters.length} arguments, and ${list.length} are given`);
      }
      if (given.size > 0 && !mentions(body, "kwargs")) {
        throw new TemplateError(`the macro ${name} has no argument ${[...given.keys()][0]}`);
      }
      return this.#captured(body, own);
    });
  }

  #callBlock(node: Node, scope: Scope, out: Output): void {
    if (node.call.callee.value === generationCall) {
      const start = out.length;
      this.block(node.body, new Scope(scope), out);
      if (out.isWhole) this.generated.push({ start, end: out.length });
      return;
    }
    const caller = this.#macro("caller", node.callerArgs ?? [], node.body, scope);
    const { list, named } = this.#arguments(node.call.args, scope);
    const called = this.#value(node.call.callee, scope);
    out.put(print(this.#call(called, { list, named: new Map([...named, ["caller", caller]]) })));
  }

  #arguments(nodes: readonly Node[], scope: Scope): Arguments {
    const list: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of nodes) {
      if (node.type === "KeywordArgumentExpression") named.set(node.key.value, this.#value(node.value, scope));
      else if (node.type === "SpreadExpression") list.push(...itemsOf(this.#value(node.argument, scope)));
      else if (node.type === "KeywordSpreadExpression") {
        const more = this.#value(node.argument, scope);
        if (!isMap(more)) throw new TemplateError(`** takes a mapping, not ${kindOf(more)}`);
        for (const [key, value] of more) named.set(print(key), value);
      } else list.push(this.#value(node, scope));
    }
    return { list, named };
  }

  #call(called: Value, args: Arguments): Value {
    if (called instanceof Undefined) called.fail();
    if (!(called instanceof Callable)) throw new TemplateError(`${kindOf(called)} can't be called`);
    return called.call(args);
  }

  #filtered(filter: Node, value: Value, scope: Scope): Value {
    if (filter.type === "Identifier") return this.filter(filter.value, value, { list: [], named: new Map() });
    if (filter.type === "CallExpression" && filter.callee.type === "Identifier") {
      return this.filter(filter.callee.value, value, this.#arguments(filter.args, scope));
    }
    // `x | f(…).name` is an attribute of what the filter gives.
    return this.#member(filter, this.#filtered(filter.object ?? filter.callee, value, scope), scope);
  }

  #member(node: Node, object: Value, scope: Scope): Value {
    if (node.type === "CallExpression") return this.#call(object, this.#arguments(node.args, scope));
    if (!node.computed) {
      return node.property.type === "Identifier"
        ? attributeOf(object, node.property.value)
        : itemOf(object, node.property.value);
    }
    if (node.property.type !== "SliceExpression") return itemOf(object, this.#value(node.property, scope));
    const { start, stop, step } = node.property;
    return sliceOf(object, [start, stop, step].map((part) => part && this.#value(part, scope)));
  }

  #value(node: Node, scope: Scope): Value {
    this.#count();
    const value = this.#evaluated(node, scope);
    if (node.type === "Identifier" || node.type === "StringLiteral") return value; // nothing was made
    if (typeof value === "string") this.#count(value.length >> 6);
    else if (Array.isArray(value)) this.#count(value.length);
    return value;
  }

  #evaluated(node: Node, scope: Scope): Value {
    switch (node.type) {
      case "IntegerLiteral":
      case "StringLiteral":
        return node.value;
      case "FloatLiteral":
        return new Float(node.value);
      case "ArrayLiteral":
        return node.value.map((item: Node) => this.#value(item, scope));
      case "TupleLiteral":
        return new Tuple(node.value.map((item: Node) => this.#value(item, scope)));
      case "ObjectLiteral":
        return new Map(
          [...node.value].map(([key, item]): [Value, Value] => [this.#value(key, scope), this.#value(item, scope)]),
        );
      case "Identifier":
        return orElse(constants.get(node.value), orElse(scope.get(node.value), new Undefined(node.value)));
      case "CallExpression":
        return this.#call(this.#value(node.callee, scope), this.#arguments(node.args, scope));
      case "MemberExpression":
        return this.#member(node, this.#value(node.object, scope), scope);
      case "UnaryExpression": {
        const value = this.#value(node.argument, scope);
        return node.operator.value === "not" ? !truth(value) : negate(node.operator.value, value);
      }
      case "BinaryExpression":
        return this.#binary(node, scope);
      case "FilterExpression":
        return this.#filtered(node.filter, this.#value(node.operand, scope), scope);
      case "TestExpression": {
        const holds = this.test(node.test.value, this.#value(node.operand, scope), { list: [], named: new Map() });
        return holds !== node.negate;
      }
      case "Ternary":
        return this.#value(truth(this.#value(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      case "SelectExpression":
        return truth(this.#value(node.test, scope))
          ? this.#value(node.lhs, scope)
          : new Undefined("an if without else");
    }
    throw new TemplateError(`it has a part of the kind ${node.type}, which is not known`);
  }

  #binary(node: Node, scope: Scope): Value {
    const operator = node.operator.value;
    const left = this.#value(node.left, scope);
    if (operator === "and") return truth(left) ? this.#value(node.right, scope) : left;
    if (operator === "or") return truth(left) ? left : this.#value(node.right, scope);
    return operate(operator, left, this.#value(node.right, scope));
  }
}

const constants = new Map<string, Value>([
  ...[["true", true], ["True", true], ["false", false], ["False", false], ["none", null], ["None", null]],
] as [string, Value][]);

/** The `loop` variable inside a loop. */
function loopAt(items: readonly Value[], i: number, changed: { last?: Tuple }): Attributes {
  const { length } = items;
  const known: Readonly<Record<string, Value>> = {
    ...{ index: i + 1, index0: i, revindex: length - i, revindex0: length - i - 1, length, depth: 1, depth0: 0 },
    ...{ first: i === 0, last: i === length - 1 },
    previtem: orElse(items[i - 1], new Undefined("the item before the first")),
    nextitem: orElse(items[i + 1], new Undefined("the item after the last")),
    cycle: new Callable("cycle", ({ list }) => list[i % list.length]),
    changed: new Callable("changed", ({ list }) => {
      const before = changed.last;
      changed.last = new Tuple(list);
      return before === undefined || !equal(before, changed.last);
    }),
  };
  return new Attributes((name) => Object.hasOwn(known, name) ? known[name] : undefined, "loop");
}

/** Whether a name occurs in a part of a template. */
function mentions(node: unknown, name: string): boolean {
  if (node instanceof Map) return [...node].some((pair) => mentions(pair, name));
  if (Array.isArray(node)) return node.some((part) => mentions(part, name));
  if (typeof node !== "object" || node === null) return false;
  const { type, value } = node as { type?: unknown; value?: unknown };
  return (type === "Identifier" && value === name) || Object.values(node).some((part) => mentions(part, name));
}
