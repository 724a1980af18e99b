"""A Generator that has its answer already: so a capability reads an answer exactly as it would from a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from qwen3vl.types import Choice, Completion, Generator, Messages, Request


class Replay:
    """Answers everything with `text`. Tasks call nothing else of the protocol."""

    def __init__(self, text: str) -> None:
        self._completion = Completion((Choice(text, "stop", raw_text=text),))

    @property
    def generator(self) -> Generator:
        return cast(Generator, self)

    def generate(self, messages: Messages, params: Any = None, **options: Any) -> Completion:
        return self._completion

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for _ in requests:
            yield self._completion
