"""Write golden.json.gz: small tokenizers and what the tokenizers library makes of texts.

    python golden.py

Training is deterministic; the text it trains on is made here.
"""
import gzip
import json
import random

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

random.seed(12)
WORDS = ("the quick brown fox jumps over a lazy dog while seven wizards brew strange potions under moonlight and nobody "
         "knows whether numbers like 12 345 6789 matter don't it's we'll they've I'd naïve café über straße Москва 東京 "
         "日本語 한국어 العربية हिन्दी emoji 😀 👩‍👩‍👧 é vs é 1/2 x=y+z {json: true} <tag> [list] (paren) a_b-c.d").split()
CORPUS = ["  ".join(random.choices(WORDS, k=9)) + random.choice(["\n", "\n\n", " ", "\t", ".\r\n"]) + " ".join(random.choices(WORDS, k=12)) for _ in range(400)]

TEXTS = [
    "", " ", "  ", "\n", " \n", "\n \n", "a", " a", "a ", "  a  b  ", "Hello, world!", "don't DON'T we'll WE'LL I'd they've it's 's", "a\u00a0b\u2003c\u3000d\u0085e\u200bf",
    "tabs\tand\t\tmore\nnew\r\nlines\n\n\n  indented\n    more", "12 345 6789 0.5 1,000,000 ½ ² Ⅷ ٣٤", "naïve café ue\u0308ber stra\u00dfe e\u0301",
    "Москва 東京 日本語 한국어 العربية हिन्दी ไทย", "😀👩‍👩‍👧🇩🇪 👍🏽", "def f(x):\n    return x**2  # square\n", "{\"a\": [1, 2.5e-3, null], \"b\": \"\\n\"}",
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b <|im_end|> c", "<|im_start|", "<|im_start|><|im_start|>",
    "x" * 300, "ab " * 100, "    ", "trailing   ", "\u0000\u0001\u007f", "\ufeffbom", "a\u0300\u0301b", "ﬁ ligature Å Å", "the quick brown fox, jumps; over: a (lazy) dog.",
    "snake_case camelCase kebab-case a.b.c", "'''quotes''' \"double\" `back`", "…–—‘’“”", "1a2b3c", "A1 B22 C333 D4444", "  leading", "\t\tleading", "line\n\n  two", "é" * 20,
] + [" ".join(random.choices(WORDS, k=15)) for _ in range(20)] + ["".join(chr(random.choice([random.randrange(32, 127), random.randrange(160, 0x250), random.randrange(0x400, 0x500), random.randrange(0x4E00, 0x4F00), random.randrange(0x1F600, 0x1F640), 32, 10])) for _ in range(40)) for _ in range(60)]

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = [AddedToken(t, special=True, normalized=False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]


def byte_bpe(pre, size, norm=None, post=None, prefix=False):
    t = Tokenizer(models.BPE())
    if norm:
        t.normalizer = norm
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if post:
        t.post_processor = post(t)
    return t


def word_level():
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=["<unk>", "<|im_end|>"], show_progress=False))
    return t


ALL = {
    "smollm": byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]), 420),
    "gpt2": byte_bpe(pre_tokenizers.ByteLevel(add_prefix_space=True), 400),
    "qwen": byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), 460, norm=normalizers.NFC()),
    "llama3": byte_bpe(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), 460,
                       post=lambda t: processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])])),
    "words": word_level(),
}

out = {"tokenizers": tokenizers.__version__, "texts": TEXTS, "cases": {}}
for name, t in ALL.items():
    case = {"file": json.loads(t.to_str()), "ids": [], "plain": [], "text": []}
    for text in TEXTS:
        ids = t.encode(text, add_special_tokens=True).ids
        case["ids"].append(ids)
        case["plain"].append(t.encode(text, add_special_tokens=False).ids)
        case["text"].append(t.decode(ids, skip_special_tokens=True))
    out["cases"][name] = case
    # Cut in the midst of characters, so that decoding meets bytes that are no text.
    case["cut"] = [t.decode(ids[i:i + 3], skip_special_tokens=False) for ids in case["plain"][15:20] for i in range(min(12, len(ids)))]
with gzip.GzipFile("golden.json.gz", "wb", mtime=0) as f:
    f.write(json.dumps(out, separators=(",", ":")).encode())
