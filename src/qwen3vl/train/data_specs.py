"""What people name as training data.

    receipts.jsonl, charts.json%50      files (see data.py); %50 takes half of the conversations
    synthetic:all                       generated samples of every task, without end
    synthetic:count,locate=3            of some tasks, locate three times as often
    shards:FOLDER                       generated samples that were written ahead (qwen3vl train shards)

Files form one set, through which the run goes epoch by epoch, each in an order of its own; so do shards, in the order
in which they were written. Several of these kinds together are taken in turns, equally often. Of generated samples each
task counts its own: the first 3k of three tasks are samples 0..k-1 of each, which `qwen3vl eval synthetic --side train
--count k` asks about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.errors import InvalidParams
from qwen3vl.train.data import Example
from qwen3vl.train.settings import TrainSettings
from qwen3vl.train.sources import DataFile, FileSource, FirstOf, MixedSource, Source
from qwen3vl.train.synthetic.registry import make_sample, task_named, tasks
from qwen3vl.train.synthetic.sample import Side, SyntheticSample
from qwen3vl.train.synthetic.shards import Shards
from qwen3vl.types import Message, TextPart

_SYNTHETIC, _SHARDS = "synthetic:", "shards:"


def open_source(
    names: Sequence[str], root: Path | None, settings: TrainSettings, side: Side, limit: int | None = None
) -> Source:
    """All of them as one source. Raises DataError for bad files, InvalidParams for bad names."""
    if not names:
        raise InvalidParams("no training data: name a file, or synthetic:all")
    files: list[DataFile] = []
    sources: list[Source] = []
    for name in names:
        if name.startswith(_SYNTHETIC):
            mix = parse_mix(name.removeprefix(_SYNTHETIC))
            made = [SyntheticTask(task, side, settings.seed) for task in mix]
            sources.append(MixedSource(made, list(mix.values())))
        elif name.startswith(_SHARDS):
            sources.append(ShardSource(Shards(Path(name.removeprefix(_SHARDS)))))
        else:
            files.append(DataFile.open(name, root, settings.ignored_keys, settings.seed))
    if files:
        sources.insert(0, FileSource(files, settings.seed))
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
    """The samples of one task, made when they are asked for."""

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


class ShardSource:
    """Samples that were written ahead, in their order, again and again."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self.size = len(shards)

    @property
    def identity(self) -> str:
        return f"{self._shards.folder.name} ({self.size} samples in shards)"

    def example(self, number: int) -> Example:
        return example_of(self._shards.sample(number % self.size))

    def key(self, number: int) -> int:
        return number % self.size


def example_of(sample: SyntheticSample) -> Example:
    """The sample's question and its answer as a conversation."""
    answer = Message("assistant", (TextPart(sample.answer),))
    return Example((*sample.messages, answer), sample.tools, sample.media, sample.key)
