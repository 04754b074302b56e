"""A tokenizer for models without weights: one character is one token, whatever the vocabulary.

Load generators draw token ids, turn them into text and expect the server to see as many tokens
again. With one character a token and no merges, ids → text → ids is exact for every id, and the
server's incremental detokenizer never waits for the rest of a character (an id that decodes to
nothing makes it quadratic).
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from moeplan.errors import InputError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
PAD_ID, BOS_ID, EOS_ID, UNK_ID = range(4)

_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if not loop.last %} {% endif %}{% endfor %}"
)
_TYPOGRAPHIC = "\n\t–—‘’“”•…€"
# Letters first (they survive every client), then private use for the largest vocabularies.
_RANGES = (
    (0x20, 0x7F),
    (0xA1, 0x250),
    (0x4E00, 0xA000),
    (0x3400, 0x4DC0),
    (0xAC00, 0xD7A4),
    (0x20000, 0x2A6E0),
    (0x2A700, 0x2EBE1),
    (0x30000, 0x323B0),
    (0xF0000, 0xFFFFE),
    (0x100000, 0x10FFFE),
    (0xE000, 0xF900),
    (0x12000, 0x19000),
    (0x370, 0x2FE0),
)
_UNSAFE = {"Cc", "Cf", "Cs", "Mn", "Me", "Zl", "Zp"}
"""Unicode categories that clients strip or reorder: controls, formats, surrogates, combining."""


def _characters() -> Iterator[str]:
    yield from _TYPOGRAPHIC
    for code in itertools.chain.from_iterable(range(*bounds) for bounds in _RANGES):
        char = chr(code)
        if char not in _TYPOGRAPHIC and unicodedata.category(char) not in _UNSAFE:
            yield char


def vocabulary(size: int) -> dict[str, int]:
    """Token → id for ids 0..size-1: four special tokens, then one character each.

    Raises `InputError` beyond the characters there are (about 270,000).
    """
    room = size - len(SPECIAL_TOKENS)
    if room < 1:
        raise InputError(f"vocab_size is {size}; it must exceed {len(SPECIAL_TOKENS)}")
    tokens = [*SPECIAL_TOKENS, *itertools.islice(_characters(), room)]
    if len(tokens) < size:
        raise InputError(f"vocab_size is {size}; the tokenizer covers at most {len(tokens)} ids")
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer(folder: Path, vocab_size: int, max_len: int) -> None:
    """Write tokenizer.json and tokenizer_config.json that cover ids 0..vocab_size-1."""
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, token in enumerate(SPECIAL_TOKENS)
    ]
    model = {"type": "BPE", "unk_token": "<unk>", "vocab": vocabulary(vocab_size), "merges": []}
    body = {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(body))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_len,
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
