/** Text whose every character remembers which characters of the original text it was made of. */

/** A part [start, end) of a text that becomes other text; where it is empty, text is put in before `start`. */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** A part of a text, as UTF-16 code units. */
export type Range = readonly [start: number, end: number];

/** Of each UTF-16 code unit of a changed text, the units [from, to) of the text before that it was made of. */
export interface Sources {
  readonly text: string;
  readonly from: Int32Array;
  readonly to: Int32Array;
}

/** A text, or a part of one, and where its UTF-16 code units come from. */
export class TrackedText {
  /** Unit i is the unit `begin` + i of `before`, or with `sources` was made of units after `begin` there. */
  private constructor(
    readonly text: string,
    private readonly before: TrackedText | null,
    private readonly begin: number,
    private readonly sources: Pick<Sources, "from" | "to"> | null,
  ) {}

  /** A text as it came. */
  static of(text: string): TrackedText {
    return new TrackedText(text, null, 0, null);
  }

  /** What of the original the units [start, end) were made of. */
  origin(start: number, end: number): Range {
    const range = this.#source([start, end]);
    return this.before === null ? range : this.before.origin(...range);
  }

  #source([start, end]: Range): Range {
    const { begin, sources } = this;
    if (sources === null) return [begin + start, begin + end];
    const { from, to } = sources;
    const first = start < from.length ? from[start] : to.at(-1) ?? 0;
    return [begin + first, begin + (end > start ? to[end - 1] : first)];
  }

  /** The part [start, end). */
  slice(start: number, end: number): TrackedText {
    const text = this.text.slice(start, end);
    const { before, begin, sources } = this;
    if (sources === null) return new TrackedText(text, before, begin + start, null);
    const part = { from: sources.from.subarray(start, end), to: sources.to.subarray(start, end) };
    return new TrackedText(text, before, begin, part);
  }

  /** The text with its parts changed; edits are in order and do not overlap. What is put in comes from what follows it. */
  edit(edits: readonly Edit[]): TrackedText {
    return edits.length === 0 ? this : this.become(sourcesOf(this.text, edits));
  }

  /** The text that was made of this one. */
  become({ text, ...sources }: Sources): TrackedText {
    return new TrackedText(text, this, 0, sources);
  }

  /** Every match of a pattern (with the flag g) as the text that `replace` makes of it; undefined leaves it as it is. */
  replaceAll(pattern: RegExp, replace: (found: string) => string | undefined): TrackedText {
    const edits: Edit[] = [];
    for (const [found, start] of matches(pattern, this.text)) {
      const text = replace(found);
      if (text !== undefined && text !== found) edits.push({ start, end: start + found.length, text });
    }
    return this.edit(edits);
  }
}

/** A text with its parts changed, and what each unit is made of. */
export function sourcesOf(text: string, edits: readonly Edit[]): Sources {
  const pieces: string[] = [];
  const length = edits.reduce((n, { start, end, text }) => n + text.length - (end - start), text.length);
  const [from, to] = [new Int32Array(length), new Int32Array(length)];
  let [read, written] = [0, 0];
  const keep = (end: number) => {
    pieces.push(text.slice(read, end));
    for (; read < end; read++, written++) [from[written], to[written]] = [read, read + 1];
  };
  for (const { start, end, text: put } of edits) {
    keep(start);
    pieces.push(put);
    const next = end > start || start === text.length ? end : start + characterLength(text, start);
    from.fill(start, written, written + put.length);
    to.fill(next, written, written + put.length);
    written += put.length;
    read = end;
  }
  keep(text.length);
  return { text: pieces.join(""), from, to };
}

/** Units of the character at a place. */
export function characterLength(text: string, at: number): number {
  return (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
}

/** What a pattern with the flag g finds, and where. The pattern may be used elsewhere between two findings. */
export function* matches(pattern: RegExp, text: string): Generator<[found: string, at: number]> {
  let next = 0;
  for (;;) {
    pattern.lastIndex = next;
    const match = pattern.exec(text);
    if (match === null) return;
    const [found] = match, { index } = match;
    // An empty match moves on by a whole character.
    next = found === "" ? index + characterLength(text, index) : index + found.length;
    yield [found, index];
  }
}
