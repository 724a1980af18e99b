"""A tokenizer of its own for a small model: byte-level BPE over the texts that it will see and write.

Text is split as Qwen's own tokenizer splits it (digits one by one, so that coordinates and times are spelled, not
remembered), every byte is a token, and the official control tokens follow behind at ids of their own, in their
official order. So the same chat template works, and any text can be written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from qwen3vl.errors import InvalidParams
from qwen3vl.processor.tokenizer import SPLIT_PATTERN

OFFICIAL = Path(__file__).parent.parent / "assets" / "qwen3-vl"
LEAST = 256  # bytes


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
    """-> vocabulary (token -> id, without gaps) and merges in their order."""
    learner = tokenizers.Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner.train_from_iterator(texts, trainer)
    learned: dict[str, Any] = json.loads(learner.to_str())["model"]
    vocab: dict[str, int] = dict(sorted(learned["vocab"].items(), key=lambda entry: entry[1]))
    assert list(vocab.values()) == list(range(len(vocab))), "ids have gaps"
    return vocab, [(a, b) for a, b in learned["merges"]]


def _official_config() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((OFFICIAL / "tokenizer_config.json").read_text(encoding="utf-8"))
    return values
