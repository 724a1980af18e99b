"""A generator that gives the sample's own answer, to send it through the capability that will read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from qwen3vl.train.synthetic.sample import SyntheticSample
from qwen3vl.types import Choice, Completion, Messages, Request


class Answering:
    """Gives one answer to everything, and remembers what it was asked."""

    def __init__(self, sample: SyntheticSample) -> None:
        self.sample, self.asked = sample, ""

    def generate(self, messages: Messages, *_: Any, **__: Any) -> Completion:
        self.asked = messages[-1].text  # type: ignore[union-attr,index]
        return Completion((Choice(self.sample.answer, "stop"),))

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            yield self.generate(request.messages)
