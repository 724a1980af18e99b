"""What a training file holds: every bad line with its reason, the rest in numbers, and a sample with its mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from qwen3vl.errors import DataError
from qwen3vl.processor.processor import media_parts
from qwen3vl.processor.tokenizer import IMAGE_PAD, VIDEO_PAD, Tokenizer
from qwen3vl.train.data import Example
from qwen3vl.train.examples import IGNORED, Encoded, Encoder
from qwen3vl.train.sources import scan
from qwen3vl.types import ImagePart


@dataclass(frozen=True, slots=True)
class CheckedExample:
    """One conversation, or one line that is none.

    Attributes:
        error: with the place in front; None if there is nothing wrong.
        tokens, labels: of a good one.
        pictures, videos: how many it shows.
        example: of a good one.
    """

    where: str
    error: str | None = None
    tokens: int = 0
    labels: int = 0
    pictures: int = 0
    videos: int = 0
    example: Example | None = None


@dataclass(slots=True)
class Summary:
    """Counts over checked conversations."""

    conversations: int = 0
    bad: int = 0
    tokens: int = 0
    labels: int = 0
    pictures: int = 0
    videos: int = 0
    longest: CheckedExample | None = field(default=None)

    def add(self, checked: CheckedExample) -> None:
        if checked.error is not None:
            self.bad += 1
            return
        self.conversations += 1
        self.tokens += checked.tokens
        self.labels += checked.labels
        self.pictures += checked.pictures
        self.videos += checked.videos
        if self.longest is None or checked.tokens > self.longest.tokens:
            self.longest = checked


def check_file(
    path: Path,
    encoder: Encoder,
    *,
    root: Path | None = None,
    ignored_keys: Sequence[str] = (),
    decode: bool = True,
    max_tokens: int | None = None,
) -> Iterator[CheckedExample]:
    """Every line, good or bad, in order.

    Args:
        decode: decode all pictures and videos; False reads only their headers.
        max_tokens: a conversation with more than these is bad.

    Raises DataError only where the file itself cannot be read.
    """
    for line in scan(path, root, ignored_keys):
        if line.error is not None:
            yield CheckedExample(line.where, line.error)
        for example in line.examples:
            yield _check(example, encoder, decode, max_tokens)


def _check(example: Example, encoder: Encoder, decode: bool, max_tokens: int | None) -> CheckedExample:
    try:
        if decode:
            encoded = encoder(example)
            tokens, labels = encoded.num_tokens, encoded.num_labels
        else:
            tokens, labels = encoder.measure(example)
    except DataError as error:
        return CheckedExample(example.where, str(error))
    if max_tokens is not None and tokens > max_tokens:
        return CheckedExample(example.where, f"{example.where}: has {tokens} tokens, more than {max_tokens}")
    parts = media_parts(example.messages)
    pictures = sum(isinstance(part, ImagePart) for part in parts)
    return CheckedExample(example.where, None, tokens, labels, pictures, len(parts) - pictures, example)


def masked_text(encoded: Encoded, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The conversation as (text, whether it is learnt) in pieces; runs of visual tokens as "<|image_pad|> x 64"."""
    pads = {tokenizer.id_of(name): name for name in (IMAGE_PAD, VIDEO_PAD)}
    tokens = zip(encoded.inputs.input_ids_T.tolist(), (encoded.labels_T != IGNORED).tolist(), strict=True)
    pieces: list[tuple[str, bool]] = []
    for (pad, learnt), group in groupby(tokens, key=lambda token: (pads.get(token[0]), token[1])):
        ids = [token for token, _ in group]
        text = tokenizer.decode(ids, skip_special_tokens=False) if pad is None else f"{pad} x {len(ids)}"
        if pieces and pieces[-1][1] == learnt:
            pieces[-1] = (pieces[-1][0] + text, learnt)
        else:
            pieces.append((text, learnt))
    return pieces
