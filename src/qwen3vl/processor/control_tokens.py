"""Control tokens that a caller merely wrote are kept apart from those that the template sets.

Before a conversation is rendered, every control token in the caller's text is put between two marks:
characters of a private-use plane that the caller's text does not contain. In the rendered prompt, what
is marked is encoded as plain characters, the rest with its control tokens:

    "say <|im_end|>"  ->  "say [<|im_end|>]"  ->  ("say ", tokens) ("<|im_end|>", characters)

The ids are those of transformers' `sanitize_control_tokens=True`, except where that lets a control token
through: in keys of JSON objects, and where it is spread over adjacent text parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_PRIVATE_USE = range(0xF0000, 0xFFFFE)  # plane 15; the first two are the marks of transformers
_PRIVATE_CHARS = re.compile(f"[{chr(_PRIVATE_USE.start)}-{chr(_PRIVATE_USE.stop - 1)}]")


@dataclass(frozen=True, slots=True)
class Marks:
    """Characters that stand nowhere in the caller's text.

    Attributes:
        start, end: around a control token that is text. One alone only separates what is around it.
        probe: for ChatTemplate's check that nothing is left out.
    """

    start: str
    end: str
    probe: str

    @classmethod
    def absent_from(cls, *values: Any) -> Marks:
        """For values of plain JSON types."""
        taken = set(_PRIVATE_CHARS.findall(json.dumps(values, ensure_ascii=False)))  # quicker than walking them
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in taken)
        return cls(next(free), next(free), next(free))

    def split(self, prompt: str, tokens: Iterable[str]) -> Iterator[tuple[str, bool]]:
        """The prompt as (text, allow_special) segments, without the marks.

        A template may cut a text at a control token (the Thinking edition's does at `</think>`); the
        mark that is left alone there still keeps its two sides from joining into a token.
        """
        for i, piece in enumerate(_marked(self.start, self.end, tuple(tokens)).split(prompt)):
            if piece:  # odd pieces are the group: a marked token, or None for a lone mark
                yield piece, i % 2 == 0


@lru_cache(maxsize=64)
def _marked(start: str, end: str, tokens: tuple[str, ...]) -> re.Pattern[str]:
    start, end = re.escape(start), re.escape(end)
    return re.compile(f"{start}({_any_of(tokens)}){end}|[{start}{end}]")


class ControlTokens:
    """Marks control tokens in a caller's values."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(tokens)
        self._pattern = re.compile(_any_of(self.tokens))
        self._overlapping = re.compile(f"(?=({_any_of(self.tokens)}))")

    def mark(self, value: Any, marks: Marks) -> Any:
        """`value` (plain JSON types) with the control tokens in all its strings marked, keys included."""
        if isinstance(value, str):
            return self._pattern.sub(lambda match: marks.start + match[0] + marks.end, value)
        if isinstance(value, dict):
            return {self.mark(key, marks): self.mark(item, marks) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark(item, marks) for item in value]
        return value

    def mark_message(self, message: Mapping[str, Any], marks: Marks) -> dict[str, Any]:
        """A template's message with its control tokens marked, within its parts and across them."""
        marked: dict[str, Any] = self.mark(dict(message), marks)
        for i in self._torn_after(message["content"]):
            marked["content"][i]["text"] += marks.end
        return marked

    def _torn_after(self, content: Sequence[Mapping[str, Any]] | str) -> Iterator[int]:
        """Indices of text parts behind which a control token goes on in the next part.

        For "<|im_" + "end|>" + "!" this is 0: the token covers characters 0 to 9, the parts end at 5,
        10 and 11, and only the end at 5 lies within it.
        """
        texts = [part.get("text", "\0") for part in content if isinstance(part, Mapping)]
        matches = [match.span(1) for match in self._overlapping.finditer("".join(texts))] if len(texts) > 1 else []
        end = 0
        for i, text in enumerate(texts):
            end += len(text)
            if any(first < end < last for first, last in matches):
                yield i


def _any_of(tokens: Iterable[str]) -> str:
    """A pattern for any of the tokens, longest first; one that never matches if there are none."""
    return "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)"
