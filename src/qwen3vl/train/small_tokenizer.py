"""A tokenizer of its own for a small model: byte-level BPE in which prompts are short and what is read is spelled.

Text is split as Qwen's own tokenizer splits it (digits one by one, so that coordinates and times are spelled, not
remembered), every byte is a token, and the official control tokens follow behind at ids of their own, in their
official order. So the same chat template works, and any text can be written.

Whole words of prompts and of JSON become one token. All other text is spelled: to write a word off a picture, a
small model then learns one step a letter, and not which letters happen to have been merged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from string import ascii_letters
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers

from qwen3vl.errors import InvalidParams
from qwen3vl.processor.tokenizer import SPLIT_PATTERN

OFFICIAL = Path(__file__).parent.parent / "assets" / "qwen3-vl"
LEAST = 256  # bytes
AT_LEAST, BARE_AT_LEAST = 5, 100  # times that a word must occur; of one that begins with a letter


def control_tokens() -> list[dict[str, Any]]:
    """The official added tokens with their flags, in the order of their ids."""
    entries: dict[str, dict[str, Any]] = _official_config()["added_tokens_decoder"]
    return [entries[token_id] for token_id in sorted(entries, key=int)]


def write_tokenizer(texts: Iterable[str], folder: Path, *, vocab_size: int, context: int, template: str) -> int:
    """Learn merges from `texts` and write vocab.json, merges.txt and tokenizer_config.json. -> tokens in all.

    `vocab_size` counts control tokens too; fewer come out where the texts have no more to merge. The same texts
    in the same order give the same files. Raises InvalidParams if bytes and control tokens have no room.
    """
    control = control_tokens()
    if vocab_size < LEAST + len(control):
        raise InvalidParams(
            f"vocab_size={vocab_size} is below {LEAST + len(control)}: {LEAST} bytes and {len(control)} control tokens"
        )
    vocab, merges = learn_merges(texts, vocab_size - len(control))
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    added = {str(len(vocab) + i): entry for i, entry in enumerate(control)}
    config = _official_config() | {
        "added_tokens_decoder": added,
        "model_max_length": context,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return len(vocab) + len(control)


def learn_merges(texts: Iterable[str], size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """-> vocabulary (token -> id, without gaps) and merges in their order.

    Words that save most tokens are taken first, as many as have room, each with all its beginnings:

        " click"   ->   (" ", "c") (" c", "l") (" cl", "i") (" cli", "c") (" clic", "k")

    Of other words these merge at most the beginning. Those of bare words ("user") may stand inside others
    ("amuser"), so bare words must be more frequent, and come last.
    """
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    nfc = normalizers.NFC()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(nfc.normalize_str(text)))
    able = [w for w, n in counts.items() if len(w) > 1 and n >= (BARE_AT_LEAST if w[0] in ascii_letters else AT_LEAST)]
    room, chosen = size - LEAST, dict[str, None]()  # a set in the order of coming
    for word in sorted(able, key=lambda w: (-counts[w] * (len(w) - 1), w)):
        beginnings = {word[:k]: None for k in range(2, len(word) + 1)}
        if len(chosen | beginnings) <= room:
            chosen |= beginnings
    ordered = sorted(chosen, key=lambda token: token[0] in ascii_letters)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {token: i for i, token in enumerate((*alphabet, *ordered))}, [(t[:-1], t[-1]) for t in ordered]


def _official_config() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((OFFICIAL / "tokenizer_config.json").read_text(encoding="utf-8"))
    return values
