"""Tokenizers in the style of well-known models, trained here on a few sentences, and what the tokenizers package makes of
hard texts with them. Reads {"seed", "texts"} from standard input: how many random texts there are beside the fixed ones.
With {"golden": FOLDER} the least of it is written there, a file for each tokenizer: tests/goldens/tokenizers was made with
{"seed": 1, "texts": 6, "golden": "tests/goldens/tokenizers"}, tokenizers 0.23.3 and sentencepiece 0.2.3."""
import io
import json
import os
import random
import sys
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import (
    AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers,
)

CORPUS = """The quick brown fox jumps over the lazy dog, and then it doesn't. I'll say it's 2024, 3.14 or 1,000,000!
un believable unbelievable the there then these hello Hello HELLO world   spaces    many
def main():\n    return [x for x in range(10)]\n\tif (a == b) { print("hi"); }
naïve café résumé Ünïcödé Straße ΟΔΥΣΣΕΥΣ και Ελλάδα привет мир שלום مرحبا 你好世界 こんにちは 한국어 🙂👍 ½ ² ٣ Ⅷ
[INST] Hi [/INST] <s> </s> user assistant system""".split("\n")

FIXED = [
    "", " ", "  ", "\n", "\t x", "a", " a", "a ", "Hello world", " Hello  world ", "Hello\n\nworld\n", "\r\n x\r\n",
    "un believable", "unbelievable", "I'll we'Re they'VE don't 's", "1234567 12 3.14 ½ ² ٣٤ Ⅷ", "ΟΔΥΣΣΕΥΣ ΑΣ Σ", "İstanbul ẞ",
    "cafe\u0301 café Å Å ﬁ ﬀ ① Ⅳ", "\u1112\u1161\u11ab 한", "a\u00a0b\u2003c\u3000d\u0085e\ufefff\u200bg\u200dh", "\x00\x01\x7f\x1fz\ufffd",
    "你好，世界！ 漢字かな交じり文", "🙂👍🏽 👨‍👩‍👧 \U0001F1E9\U0001F1EA", "<s>a</s>", "x<s> y </s>z", "a <tool> b<tool>c", "<word> a<word>b <word>",
    "the <NORM> and <norm>", "x<|a-b/c|>y a-b/c -/-", "[MASK] a[MASK] b  [MASK]  c", "▁a▁▁b", "<0x41><0xE2>", "a_b-c/d\\e", "foo.bar(baz);", "\u0130\u0131", "ｆｕｌｌ　ｗｉｄｔｈ",
    "e\u0327\u0301", "नमस्ते दुनिया", "สวัสดี", "a\u0301\u0301b", "…—“quoted”", "$€£ 5€", "zzzzqqqq", "\u2581", "   x", "x   ", "\n\n\n", "Aﬃne", "～〜",
    "\u0378x\ue000y", "ŉ ǰ ΐ", "ǅ ǆ", "\U000e0001", "Ġa Ċ", "don\u2019t",
]

PIECES = list("abcdehilnorstuvxyz ABZ  \n\t.,!?'\"()-_/▁0123") + [
    "the", "hello", " world", "un", "believ", "able", "é", "e\u0301", "Σ", "σς", "ß", "İ", "你", "好", "한", "🙂", "👍🏽", "\u00a0", "\u3000", "\u200d", "\ufeff",
    "\u0085", "½", "٣", "ﬁ", "<s>", "</s>", "<tool>", "<word>", "<NORM>", "[MASK]", "'ll", "'S", "  ", "\r\n", "ï", "नि", "ก็", "ё", "<0x0A>",
]


def added(*tokens):
    """The special marks, and tokens of every kind."""
    return [AddedToken(t, special=True, normalized=False) for t in tokens] + [
        AddedToken("<tool>", lstrip=True, rstrip=True, special=False, normalized=False),
        AddedToken("<word>", single_word=True, special=False, normalized=False),
        AddedToken("<NORM>", special=False, normalized=True),
        AddedToken("<|a-b/c|>", special=False, normalized=False),
        AddedToken("[MASK]", lstrip=True, special=True, normalized=False),
    ]


def trained(model, trainer, normalizer=None, pre=None, post=None, decoder=None, marks=("<s>", "</s>", "<unk>")):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    tokenizer.train_from_iterator(CORPUS, trainer)
    extra = added(*marks)
    for token in extra:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if post is not None:
        tokenizer.post_processor = post(tokenizer)
    if decoder is not None:
        tokenizer.decoder = decoder
    return tokenizer


def template(before, after=(), pair=None):
    def make(tokenizer):
        single = " ".join([*before, "$A", *after])
        special = [(t, tokenizer.token_to_id(t)) for t in {*before, *after}]
        return processors.TemplateProcessing(single=single, pair=pair or f"{single} $B:1", special_tokens=special)
    return make


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def bpe(size, marks, **options):
    return trainers.BpeTrainer(vocab_size=size, special_tokens=list(marks), show_progress=False, **options)


def byte_level_bpe(pre, marks=("<|begin|>", "<|end|>"), post=None, normalizer=None, size=420, **options):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(models.BPE(**options), bpe(size, marks, initial_alphabet=alphabet), normalizer, pre, post,
                   decoders.ByteLevel(), marks)


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
plain_bytes = lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
gpt2_bytes = lambda prefix=False: pre_tokenizers.ByteLevel(add_prefix_space=prefix, trim_offsets=False, use_regex=True)
sequence = lambda *all: pre_tokenizers.Sequence(list(all))


def sentencepiece_style(normalizer, pre, decoder, post=template(["<s>"]), marks=("<unk>", "<s>", "</s>"), size=700):
    """Byte fallback over pieces, as converted from SentencePiece's BPE."""
    model = models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return trained(model, bpe(size, [*marks, *BYTES], initial_alphabet=["▁"]), normalizer, pre, post, decoder, marks)


def unigram(normalizer, pre, decoder, post=None, marks=("<pad>", "</s>", "<unk>"), **options):
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=list(marks), unk_token="<unk>", show_progress=False)
    tokenizer = trained(models.Unigram(), trainer, normalizer, pre, post, decoder, marks)
    return tokenizer


def unigram_bytes():
    """Unigram that writes what it lacks as bytes, as Gemma's and others' SentencePiece models do."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)] + [(b, 0.0) for b in BYTES]
    pieces += [("▁", -2.0), ("▁the", -2.5), ("he", -4.0), ("llo", -4.5), ("▁un", -4.0)] + [(c, -6.0) for c in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", "always")])
    for token in added():
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def charsmap():
    """SentencePiece's own compiled table, of a few rules."""
    rules = ["FB01\t66 69", "FB03\t66 66 69", "FF46\t66", "3000\t20", "A0\t20", "9\t20", "A\t20", "65 301\tE9", "B2\t32", "200D\t", "1F44D 1F3FD\t1F44D"]
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False) as file:
        file.write("\n".join(rules) + "\n")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=out, vocab_size=120, hard_vocab_limit=False,
        normalization_rule_tsv=file.name, minloglevel=2)
    os.unlink(file.name)
    model = proto.ModelProto()
    model.ParseFromString(out.getvalue())
    return model.normalizer_spec.precompiled_charsmap


def wordpiece(normalizer, marks=("[PAD]", "[UNK]", "[CLS]", "[SEP]")):
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=list(marks), show_progress=False)
    post = template(["[CLS]"], ["[SEP]"], "[CLS] $A [SEP] $B:1 [SEP]:1")
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, normalizer, pre_tokenizers.BertPreTokenizer(), post,
                   decoders.WordPiece(), marks)


def styles():
    metaspace = lambda scheme, split=True: pre_tokenizers.Metaspace("▁", scheme, split)
    llama2_decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    gemma_decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    yield "gpt2", byte_level_bpe(gpt2_bytes())
    yield "roberta", byte_level_bpe(gpt2_bytes(True), marks=("<s>", "</s>"), post=lambda t: processors.RobertaProcessing(
        ("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")), trim_offsets=False, add_prefix_space=True))
    yield "llama3", byte_level_bpe(sequence(split(LLAMA3), plain_bytes()), ignore_merges=True, post=lambda t: processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(["<|begin|>"])(t)]))
    yield "qwen", byte_level_bpe(sequence(split(LLAMA3.replace("{1,3}", "")), plain_bytes()), normalizer=normalizers.NFC())
    yield "tekken", byte_level_bpe(sequence(split(CASED), plain_bytes()), ignore_merges=True, post=template(["<|begin|>"]))
    yield "possessive", byte_level_bpe(sequence(split(POSSESSIVE), plain_bytes()))
    yield "smollm", byte_level_bpe(sequence(pre_tokenizers.Digits(True), gpt2_bytes()))
    yield "deepseek", byte_level_bpe(sequence(
        split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"),
        split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
        plain_bytes()))
    yield "falcon", byte_level_bpe(sequence(
        pre_tokenizers.Punctuation("contiguous"), gpt2_bytes(), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")))
    yield "bloom", byte_level_bpe(sequence(split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), plain_bytes()))
    yield "olmo", byte_level_bpe(sequence(split(r"\s+$|\w+|\W", "removed", True), plain_bytes()))
    yield "llama2", sentencepiece_style(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, llama2_decoder)
    yield "mistral", sentencepiece_style(None, metaspace("first", False), llama2_decoder)
    yield "gemma", sentencepiece_style(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), gemma_decoder)
    yield "never", sentencepiece_style(None, metaspace("never"), decoders.Metaspace("▁", "never"))
    yield "t5", unigram(normalizers.Sequence([normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), "▁")]),
                        metaspace("always"), decoders.Metaspace("▁", "always"), template([], ["</s>"]))
    yield "xlm-roberta", unigram(normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Strip()]),
                                 sequence(pre_tokenizers.WhitespaceSplit(), metaspace("always")), decoders.Metaspace("▁", "always"))
    yield "albert", unigram(normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]),
                            metaspace("first"), decoders.Metaspace("▁", "first"))
    yield "bert-uncased", wordpiece(normalizers.BertNormalizer(lowercase=True))
    yield "bert-cased", wordpiece(normalizers.BertNormalizer(lowercase=False, strip_accents=False))
    yield "clip", trained(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), bpe(300, ("<unk>",), end_of_word_suffix="</w>"),
                          normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]), pre_tokenizers.Whitespace(),
                          None, decoders.BPEDecoder("</w>"), ("<unk>",))
    yield "byte-unigram", unigram_bytes()
    yield "stripped", sentencepiece_style(normalizers.Sequence([normalizers.Strip(), normalizers.Replace("-", "/")]),
                                          sequence(pre_tokenizers.Split("/", "merged_with_next"), metaspace("first")), llama2_decoder, size=300)
    yield "words", trained(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(special_tokens=["<unk>"], show_progress=False),
                           normalizers.Strip(), sequence(pre_tokenizers.CharDelimiterSplit(" "), pre_tokenizers.Punctuation("merged_with_next")),
                           None, None, ("<unk>",))


def main():
    job = json.load(sys.stdin)
    draw = random.Random(job["seed"])
    texts = FIXED + ["".join(draw.choice(PIECES) for _ in range(draw.randint(1, 24))) for _ in range(job["texts"])]
    found = {}
    for name, tokenizer in styles():
        rows = []
        for i, text in enumerate(texts):
            framed, bare = tokenizer.encode(text), tokenizer.encode(text, add_special_tokens=False)
            pair = tokenizer.encode(text, texts[i - 1])
            drawn = [draw.randrange(tokenizer.get_vocab_size()) for _ in range(draw.randint(0, 8))]
            rows.append({
                "text": text, "ids": bare.ids, "offsets": bare.offsets, "framed": framed.ids,
                "pair": [texts[i - 1], pair.ids, pair.type_ids],
                "decoded": tokenizer.decode(bare.ids, skip_special_tokens=False),
                "shown": tokenizer.decode(framed.ids, skip_special_tokens=True),
                "drawn": [drawn, tokenizer.decode(drawn, skip_special_tokens=False)],
            })
        found[name] = {"tokenizer": json.loads(tokenizer.to_str()), "rows": rows}
    if "golden" not in job:
        return json.dump(found, sys.stdout)
    for name, style in found.items():
        rows = [{key: row[key] for key in ("text", "ids", "offsets", "decoded")} for row in style["rows"]]
        with open(f"{job['golden']}/{name}.json", "w", encoding="utf-8") as file:
            json.dump({"tokenizer": style["tokenizer"], "rows": rows}, file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")


main()
