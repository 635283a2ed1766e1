"""Records what the reference tokenizer library makes of random text, as tests/data/tokenizer_cases.json.

Usage: python3 tests/reference/make_tokenizer_cases.py     (needs PyPI's `tokenizers`; see README.md beside this file)
"""

import json
import pathlib
import random

from tokenizers import Tokenizer
from tokenizers import __version__ as library_version

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "model" / "embedded" / "tokenizer.json"
OUTPUT = ROOT / "tests" / "data" / "tokenizer_cases.json"

WORDS = ["the", " LORD", "And", " said", "unto", "'s", "'S", "'re", "'VE", "don't", "ſ", "'ſ", "Œuvre", "straße", "naïve", "Ελλάδα", "привет", "שלום",
         "العربية", "हिन्दी", "ไทย", "日本語", "漢字", "한국어", "👩‍👩‍👧", "🇯🇵", "👍🏽", "１２３", "½", "Ⅻ", "²", "١٢"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|", "<|im_", "<|<|im_start|>|>", "|>"]
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\r", "\u00a0", "\u2003", "\u3000", "\u200b", "\u180e", "\u0085", "\u2028", "\x0b", "\x0c", "\x1c",
          "\ufeff"]
MARKS = ["e\u0301", "\u00e9", "a\u0323\u0302", "a\u0302\u0323", "\u1ea1\u0302", "o\u0308\u0304", "\u212b", "\u2126", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0958",
         "\u0344", "\u0301", "\u0340", "\u1e9b\u0323", "\u2adc", "\ufb1d", "\U0001d15e", "q\u0307\u0323", "\u0f73", "\u0327\u0301\u0327"]
SYMBOLS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "—", "«", "»", "™", "€", "\x00", "\x7f", "\u0001", "\ue000", "\ufffd", "\uffff", "\U0010ffff"]


def random_text(rng):
    kinds = [WORDS, WORDS, SPECIAL, SPACES, SPACES, MARKS, SYMBOLS]
    parts = []
    for _ in range(rng.randint(1, 14)):
        kind = rng.randint(0, len(kinds) + 2)
        if kind < len(kinds):
            parts.append(rng.choice(kinds[kind]))
        elif kind == len(kinds):
            parts.append("".join(chr(rng.randint(0x20, 0x7e)) for _ in range(rng.randint(1, 12))))
        elif kind == len(kinds) + 1:
            point = rng.choice([rng.randint(0x80, 0x7ff), rng.randint(0x800, 0xd7ff), rng.randint(0x1f300, 0x1faff)])
            parts.append(chr(point))
        else:
            parts.append(str(rng.randint(0, 10**rng.randint(1, 12))))
    return "".join(parts)


def encode_cases(tokenizer, rng, count):
    cases = []
    for _ in range(count):
        text = random_text(rng)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)})
    return cases


def decode_cases(tokenizer, rng, count):
    """Random ids: their bytes are mostly no UTF-8."""
    cases = []
    size = tokenizer.get_vocab_size()
    for _ in range(count):
        # Single bytes are the ids below 259: characters are cut, and continued where they should not be.
        ids = [rng.randint(0, 258) if rng.random() < 0.8 else rng.randint(0, size - 1) for _ in range(rng.randint(1, 24))]
        cases.append({"ids": ids, "skipped": tokenizer.decode(ids, skip_special_tokens=True), "kept": tokenizer.decode(ids, skip_special_tokens=False)})
    return cases


def added(identity, content, normalized, special):
    return {"id": identity, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": special}


def variants(base):
    """Other forms that tokenizer.json may have; each replaces whole sections of the embedded file."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = lambda pattern: {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    qwen = base["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    more = base["added_tokens"] + [added(4096, "\u1e9b\u0323", True, False), added(4097, "e\u0301", False, False), added(4098, "LORD", True, False),
                                   added(4099, "<|im_end|>|>", False, True), added(4100, " the", False, False), added(4101, "\u00ab\u00bb", False, False)]
    return {
        "byte level's own pattern": {"pre_tokenizer": dict(byte_level, use_regex=True)},
        "no normalizer": {"normalizer": None},
        "several splits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("\\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
            byte_level]}},
        "words that are tokens are not merged": {"model": {"ignore_merges": True}, "drop_merges_every": 3},
        "merges as text": {"model": {"merges_as_text": True}},
        "added tokens that overlap, of both kinds": {"added_tokens": more},
        "possessive and atomic groups": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("(?>" + qwen + ")"), split("\\p{Lu}++|\\S\\s?+"), byte_level]}},
    }


def apply(base, change):
    """The same steps as tokenizer_reference_test.cpp takes."""
    result = json.loads(json.dumps(base))
    for key in ("normalizer", "pre_tokenizer", "added_tokens"):
        if key in change:
            result[key] = change[key]
    model = result["model"]
    if change.get("model", {}).get("ignore_merges"):
        model["ignore_merges"] = True
    if step := change.get("drop_merges_every"):
        model["merges"] = [merge for index, merge in enumerate(model["merges"]) if index % step != 0]
    if change.get("model", {}).get("merges_as_text"):
        model["merges"] = ["#version: 0.2"] + [" ".join(merge) for merge in model["merges"]]
    return result


def main():
    rng = random.Random(20240229)
    base = json.loads(MODEL.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_str(json.dumps(base))
    output = {
        "about": f"What tokenizers {library_version} makes of random text with the embedded model's tokenizer.json, and with changed forms of it. "
                 "Made by tests/reference/make_tokenizer_cases.py.",
        "encode": encode_cases(tokenizer, rng, 500),
        "decode": decode_cases(tokenizer, rng, 150),
        "variants": [],
    }
    for name, change in variants(base).items():
        other = Tokenizer.from_str(json.dumps(apply(base, change)))
        output["variants"].append({"name": name, "change": change, "encode": encode_cases(other, rng, 70)})
    OUTPUT.write_text(json.dumps(output, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{OUTPUT.relative_to(ROOT)}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
