/** Whether a pattern can take a time that grows with a text as no honest pattern's does. */
import { type AST, RegExpParser, visitRegExpAST } from "@eslint-community/regexpp";

/** Repetitions of more times than this are as bad as those without a bound, and so are more ways than this to share few. */
const many = 16, manyWays = 256;

/**
 * A part of an expression that can match one text in too many ways. In exponentially many: something repeated in whose
 * repetitions a further one, or another alternative, may begin with the same character as the repetition itself, or nothing
 * must stand. Or in as many as a power of its length says: repetitions that can share the same characters among them before
 * something that must follow. Null where there is none: a search then takes at most the square of the text's length.
 */
export function ambiguousPart({ source, flags }: RegExp): string | null {
  const pattern = new RegExpParser({ ecmaVersion: 2025 }).parsePattern(source, 0, source.length, {
    unicode: flags.includes("u"),
    unicodeSets: flags.includes("v"),
  });
  const matched = new Map<string, boolean[]>(); // which of the samples a part matches
  const matchesOf = ({ raw }: AST.Node) => {
    if (!matched.has(raw)) {
      const alone = new RegExp(`^(?:${raw})`, flags.replace(/[gy]/g, ""));
      matched.set(raw, samples.map((character) => alone.test(character)));
    }
    return matched.get(raw)!;
  };
  const overlaps = (a: AST.Node | null, b: AST.Node | null) => {
    if (a === null || b === null) return true;
    const [first, second] = [matchesOf(a), matchesOf(b)];
    return first.some((does, i) => does && second[i]);
  };
  let found: string | null = null;
  visitRegExpAST(pattern, {
    onAlternativeEnter(alternative) {
      found ??= sharedPart(alternative, overlaps);
    },
    onQuantifierEnter(outer) {
      const { element } = outer;
      if (found !== null || outer.max === 1 || !isGroup(element)) return;
      const begins = element.alternatives.map((alternative) => beginOf(alternative));
      for (const [i, begin] of begins.entries()) {
        for (const inner of repeatedIn(element.alternatives[i])) {
          if (isLong(inner) && overlaps(begin, beginOfNode(inner))) found = outer.raw;
        }
        if (outer.max <= many) continue;
        const optional = element.alternatives[i].elements.filter((part) =>
          part.type === "Quantifier" && part.min === 0
        );
        if (optional.length > 1 && optional.length === element.alternatives[i].elements.length) found = outer.raw;
        if (begins.slice(i + 1).some((other) => overlaps(begin, other))) found = outer.raw;
        for (const group of choicesIn(element.alternatives[i])) {
          const first = group.alternatives.map(beginOf);
          if (first.some((one, j) => first.slice(j + 1).some((other) => overlaps(one, other)))) found = outer.raw;
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

type Overlaps = (a: AST.Node | null, b: AST.Node | null) => boolean;

/**
 * The part of a sequence up to what must follow on long repetitions that can share characters: `a*a*b`. Where it does not
 * follow, each way to share them is tried.
 */
function sharedPart(alternative: AST.Alternative, overlaps: Overlaps): string | null {
  const { end } = findShared(alternative, overlaps);
  return end === null ? null : alternative.raw.slice(0, end - alternative.start);
}

/** Whether long repetitions of a sequence can share characters, and where what must follow on them ends. */
function findShared(sequence: AST.Alternative, overlaps: Overlaps): { shared: boolean; end: number | null } {
  const open = new Set<AST.Quantifier>(); // what may still take the next character, or leave it
  let shared = false, end: number | null = null;
  /** `sure` where all that must stand in the part must stand in the whole. */
  const walk = (part: AST.Alternative, sure: boolean): void => {
    for (const node of part.elements) {
      const needed = sure && isNeeded(node);
      if (shared && (needed || sure && node.type === "Assertion")) end ??= node.end;
      if (node.type === "Assertion") continue;
      const overlapping = [...open].filter((one) => overlaps(beginOfNode(one), beginOfNode(node)));
      if (needed) {
        open.clear();
        for (const one of overlapping) open.add(one);
      }
      const inside = node.type === "Quantifier" ? node.element : node;
      const options = isGroup(inside) ? inside.alternatives : [];
      if (node.type === "Quantifier" && node.max > node.min) {
        const [long, short] = [[...overlapping, node].filter(isLong), [...overlapping, node].filter((q) => !isLong(q))];
        shared ||= long.length > 1 || short.reduce((ways, { min, max }) => ways * (max - min + 1), 1) > manyWays;
        open.add(node);
      }
      if (node.type === "Quantifier" && node.max > 1) {
        // Short ones in each other are taken as they come, if nothing must follow.
        const inner = options.flatMap(repeatedIn).filter((one) => overlaps(beginOfNode(node), beginOfNode(one)));
        shared ||= inner.some(({ max }) => node.max * max > many);
      }
      if (node.type === "Quantifier" && isLong(node)) {
        shared ||= options.some((option) => findShared(option, overlaps).shared);
      } else for (const option of options) walk(option, needed && options.length === 1);
    }
  };
  walk(sequence, true);
  return { shared, end };
}

const isLong = ({ max }: AST.Quantifier) => max > many;

/** Whether something must stand there. */
function isNeeded(node: AST.Node): boolean {
  if (node.type === "Quantifier") return node.min > 0 && isNeeded(node.element);
  return isGroup(node) ? node.alternatives.every(({ elements }) => elements.some(isNeeded)) : node.type !== "Assertion";
}

/** What the first character of a part is matched by; null where that is not one thing. */
function beginOfNode(node: AST.Node): AST.Node | null {
  if (node.type === "Quantifier") return beginOfNode(node.element);
  return isGroup(node) ? firstOf(node) : node.type === "Backreference" ? null : node;
}

/** What is repeated several times, more or fewer, within an alternative, behind no look to either side. */
function repeatedIn(alternative: AST.Alternative): AST.Quantifier[] {
  return alternative.elements.flatMap((node): AST.Quantifier[] => {
    if (node.type === "Quantifier") {
      const inside = isGroup(node.element) ? node.element.alternatives.flatMap(repeatedIn) : [];
      return node.max > Math.max(1, node.min) ? [node, ...inside] : inside;
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
