/** Whether a pattern can take a time that grows exponentially with a text. */
import { type AST, RegExpParser, visitRegExpAST } from "@eslint-community/regexpp";

/**
 * A part of an expression that can match one text in exponentially many ways: something repeated without a bound in whose
 * repetitions a further one, or another alternative, may begin with the same character as the repetition itself, or nothing
 * must stand. Null where there is none: what takes long then is at most a power of the text's length.
 */
export function ambiguousPart({ source, flags }: RegExp): string | null {
  const pattern = new RegExpParser({ ecmaVersion: 2025 }).parsePattern(source, 0, source.length, {
    unicode: flags.includes("u"),
    unicodeSets: flags.includes("v"),
  });
  const overlaps = (a: AST.Node | null, b: AST.Node | null) => {
    if (a === null || b === null) return true;
    const [first, second] = [a, b].map(({ raw }) => new RegExp(`^(?:${raw})`, flags.replace(/[gy]/g, "")));
    return samples.some((character) => first.test(character) && second.test(character));
  };
  let found: string | null = null;
  visitRegExpAST(pattern, {
    onQuantifierEnter(outer) {
      const { element } = outer;
      if (found !== null || outer.max !== Infinity || !isGroup(element)) return;
      const begins = element.alternatives.map((alternative) => beginOf(alternative));
      for (const [i, begin] of begins.entries()) {
        const optional = element.alternatives[i].elements.filter((part) =>
          part.type === "Quantifier" && part.min === 0
        );
        if (optional.length > 1 && optional.length === element.alternatives[i].elements.length) found = outer.raw;
        if (begins.slice(i + 1).some((other) => overlaps(begin, other))) found = outer.raw;
        for (const group of choicesIn(element.alternatives[i])) {
          const first = group.alternatives.map(beginOf);
          if (first.some((one, j) => first.slice(j + 1).some((other) => overlaps(one, other)))) found = outer.raw;
        }
        for (const inner of repeatedIn(element.alternatives[i])) {
          if (overlaps(begin, isGroup(inner.element) ? firstOf(inner.element) : inner.element)) found = outer.raw;
        }
      }
    },
  });
  return found;
}

/** Characters of many kinds: those of Latin scripts, and one or two of others. */
const samples = [...Array.from({ length: 0x250 }, (_, i) => String.fromCodePoint(i)), ...[
  ..."Ωжא٣あア漢한\u0301\u2028\u3000…“🙂ⅷ",
]];

type Group = AST.Group | AST.CapturingGroup;
const isGroup = (node: AST.Node): node is Group => node.type === "Group" || node.type === "CapturingGroup";

/** What the first character of an alternative is matched by; null where that is not one thing. */
function beginOf({ elements }: AST.Alternative): AST.Node | null {
  const [first] = elements.filter(({ type }) => type !== "Assertion");
  if (first === undefined) return null;
  if (first.type === "Quantifier") {
    return first.min === 0 ? null : isGroup(first.element) ? firstOf(first.element) : first.element;
  }
  return isGroup(first) ? firstOf(first) : first.type === "Backreference" ? null : first;
}

const firstOf = (group: Group): AST.Node | null =>
  group.alternatives.length === 1 ? beginOf(group.alternatives[0]) : null;

/** What is repeated without a bound within an alternative, behind no look to either side. */
function repeatedIn(alternative: AST.Alternative): AST.Quantifier[] {
  return alternative.elements.flatMap((node): AST.Quantifier[] => {
    if (node.type === "Quantifier") {
      const inside = isGroup(node.element) ? node.element.alternatives.flatMap(repeatedIn) : [];
      return node.max === Infinity ? [node, ...inside] : inside;
    }
    return isGroup(node) ? node.alternatives.flatMap(repeatedIn) : [];
  });
}

/** The groups of several alternatives within an alternative. */
function choicesIn(alternative: AST.Alternative): Group[] {
  return alternative.elements.flatMap((node): Group[] => {
    const group = node.type === "Quantifier" ? node.element : node;
    if (!isGroup(group)) return [];
    const inside = group.alternatives.flatMap(choicesIn);
    return group.alternatives.length > 1 ? [group, ...inside] : inside;
  });
}
