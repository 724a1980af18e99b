"""What people name as training data.

    receipts.jsonl, charts.json%50      files (see data.py); %50 takes half of the conversations
    synthetic:all                       generated samples of every task, without end
    synthetic:count,locate=3            of some tasks, locate three times as often

Files form one set, through which the run goes epoch by epoch. Files and generated samples together are taken in
turns, half and half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.errors import InvalidParams
from qwen3vl.train.data import Example
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sources import DataFile, FileSource, FirstOf, MixedSource, Source
from qwen3vl.train.synthetic.registry import make_sample, task_named, tasks
from qwen3vl.train.synthetic.sample import Side, SyntheticSample
from qwen3vl.types import Message, TextPart

_SYNTHETIC = "synthetic:"


def open_source(
    names: Sequence[str], root: Path | None, settings: TrainSettings, side: Side, limit: int | None = None
) -> Source:
    """All of them as one source. Raises DataError for bad files, InvalidParams for bad names."""
    if not names:
        raise InvalidParams("no training data: name a file, or synthetic:all")
    files = [
        DataFile.open(name, root, settings.ignored_keys, settings.seed)
        for name in names
        if not name.startswith(_SYNTHETIC)
    ]
    made = [
        SyntheticSource(parse_mix(name.removeprefix(_SYNTHETIC)), side, settings.seed)
        for name in names
        if name.startswith(_SYNTHETIC)
    ]
    sources: list[Source] = [*([FileSource(files, settings.seed)] if files else []), *made]
    source = sources[0] if len(sources) == 1 else MixedSource(sources, [1.0] * len(sources))
    return source if limit is None else FirstOf(source, limit, settings.seed)


def parse_mix(text: str) -> dict[str, float]:
    """ "count,locate=3" -> {"count": 1.0, "locate": 3.0}; "all" is every task once. Raises InvalidParams."""
    if text == "all":
        return dict.fromkeys(tasks(), 1.0)
    mix: dict[str, float] = {}
    for entry in text.split(","):
        name, _, weight = entry.strip().partition("=")
        task_named(name)
        try:
            mix[name] = float(weight or 1)
        except ValueError as error:
            raise InvalidParams(f"{_SYNTHETIC}{text}: {weight!r} is not a number") from error
        if not mix[name] > 0:
            raise InvalidParams(f"{_SYNTHETIC}{text}: the weight of {name} must be above 0")
    return mix


@dataclass(frozen=True)
class SyntheticTask:
    """The samples of one task."""

    task: str
    side: Side
    seed: int

    size = None

    @property
    def identity(self) -> str:
        return f"{self.side}/{self.task}/{self.seed}"

    def example(self, number: int) -> Example:
        return example_of(make_sample(self.task, self.side, self.seed, number))

    def key(self, number: int) -> None:
        return None


class SyntheticSource(MixedSource):
    """A mixture of tasks."""

    def __init__(self, mix: Mapping[str, float], side: Side, seed: int) -> None:
        super().__init__([SyntheticTask(task, side, seed) for task in mix], list(mix.values()))


def example_of(sample: SyntheticSample) -> Example:
    """The sample's question and its answer as a conversation."""
    answer = Message("assistant", (TextPart(sample.answer),))
    return Example((*sample.messages, answer), sample.tools, sample.media, sample.key)
