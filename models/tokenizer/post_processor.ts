/** The special tokens around texts: `post_processor` of a tokenizer.json (tokenizers, `processors`). */
import { type Json, part, parts, unknownKind } from "./json.ts";

/** A special token, or one of the texts. */
export type Place = ({ readonly ids: readonly number[] } | { readonly text: 0 | 1 }) & { readonly type: number };

/** The special tokens around one text, and around a pair. */
export interface Frame {
  readonly single: readonly Place[];
  readonly pair: readonly Place[];
}

const bare: Frame = { single: [{ text: 0, type: 0 }], pair: [{ text: 0, type: 0 }, { text: 1, type: 1 }] };

const makers: Readonly<Record<string, (config: Json) => Frame>> = {
  TemplateProcessing: ({ single, pair, special_tokens: special }) => ({
    single: template(single, special),
    pair: template(pair, special),
  }),
  BertProcessing: (config) => {
    const { cls, sep } = ends(config);
    return {
      single: [{ ids: cls, type: 0 }, { text: 0, type: 0 }, { ids: sep, type: 0 }],
      pair: [{ ids: cls, type: 0 }, { text: 0, type: 0 }, { ids: sep, type: 0 }, { text: 1, type: 1 }, {
        ids: sep,
        type: 1,
      }],
    };
  },
  RobertaProcessing: (config) => {
    const { cls, sep } = ends(config);
    const single: Place[] = [{ ids: cls, type: 0 }, { text: 0, type: 0 }, { ids: sep, type: 0 }];
    return { single, pair: [...single, { ids: sep, type: 0 }, { text: 1, type: 0 }, { ids: sep, type: 0 }] };
  },
  ByteLevel: () => bare,
  Sequence: ({ processors }) => parts(processors, "its post_processor").map(make).reduce(around, bare),
};

/** The frame of a tokenizer.json; none adds nothing. */
export function readFrame(value: unknown): Frame {
  const config = part(value, "its post_processor");
  return config === null ? bare : make(config);
}

function make(config: Json): Frame {
  const maker = Object.hasOwn(makers, String(config.type)) ? makers[String(config.type)] : undefined;
  return maker ? maker(config) : unknownKind("post_processor", config, Object.keys(makers));
}

/** One frame around another. */
function around(inner: Frame, outer: Frame): Frame {
  if (outer === bare) return inner;
  if (inner === bare) return outer;
  return { single: outer.single.flatMap((place) => "text" in place ? inner.single : [place]), pair: outer.pair };
}

function template(pieces: unknown, special: unknown): Place[] {
  return parts(pieces, "its template").map((piece): Place => {
    const { Sequence: sequence, SpecialToken: token } = piece as Record<string, Json | undefined>;
    const type = Number((sequence ?? token)?.type_id ?? 0);
    if (sequence) return { text: sequence.id === "B" ? 1 : 0, type };
    const ids = (Object(special)[String(token?.id)] as { ids?: unknown } | undefined)?.ids;
    if (!Array.isArray(ids) || !ids.every((id) => Number.isInteger(id) && id >= 0)) {
      throw new Error(`its template puts ${JSON.stringify(token?.id)} around texts and does not say the id`);
    }
    return { ids, type };
  });
}

function ends({ cls, sep }: Json): { cls: number[]; sep: number[] } {
  const id = (pair: unknown) => {
    if (Array.isArray(pair) && Number.isInteger(pair[1]) && pair[1] >= 0) return [pair[1] as number];
    throw new Error("its post_processor does not say the ids of cls and sep");
  };
  return { cls: id(cls), sep: id(sep) };
}
