"""What a model can do on synthetic samples: one loop over samples and a Generator, and the table it makes.

    samples --requests--> Generator.generate_many --answers--> score --> TaskResult, one a task

Any Generator will do: a loaded checkpoint, a remote server, the model in training. Nothing is drawn at random
beyond the samples, and decoding is greedy unless `params` says otherwise: the same model gives the same table.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from qwen3vl.errors import InvalidParams
from qwen3vl.settings import SamplingParams
from qwen3vl.train.intervals import interval
from qwen3vl.train.metrics import Metric
from qwen3vl.train.scoring import LOWER_IS_BETTER, Score, score
from qwen3vl.train.synthetic.sample import Side, SyntheticSample, Truth
from qwen3vl.types import Completion, Generator, Request

MAX_TOKENS = 2048
Progress = Callable[[str, int, int], None]  # task, answers so far, of


@dataclass(frozen=True, slots=True)
class Value:
    """One metric over all samples of a task.

    Attributes:
        value: sum of parts over sum of wholes; None where nothing was measured.
        low, high: its 95 % interval (see intervals.py).
        number: samples in which it was measured.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    number: int

    @property
    def lower_is_better(self) -> bool:
        return self.name in LOWER_IS_BETTER


@dataclass(frozen=True, slots=True)
class Mistake:
    """An answer that was not perfect; `failure` names what kept it from being read, if anything did."""

    sample: SyntheticSample
    said: str
    failure: str | None


@dataclass(frozen=True, slots=True)
class Scored:
    """What of an answer is kept: the truth it was held against and what it was worth."""

    truth: Truth
    metrics: Mapping[str, Metric]
    perfect: bool


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task.

    Attributes:
        number: samples that were asked.
        perfect: how many answers had nothing wrong.
        values: the first is what the task is about.
        failures: kind -> how many answers: "empty", "unreadable", "cut" (see `bounded`; it may yet be scored), or the
            name of the error with which a request failed.
        seconds: spent waiting for answers; the time in which samples were made or scored is not in it, even if
            the model was at work meanwhile.
        mistakes: the first few.
        scored: every answer, in the order in which it was asked for.
    """

    task: str
    number: int
    perfect: int
    values: tuple[Value, ...]
    failures: Mapping[str, int]
    seconds: float
    mistakes: tuple[Mistake, ...] = ()
    scored: tuple[Scored, ...] = ()

    @property
    def errors(self) -> int:
        """How many requests failed, whatever the model might have said."""
        return sum(count for kind, count in self.failures.items() if kind[:1].isupper())

    def as_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "number": self.number,
            "perfect": self.perfect,
            "metrics": {
                v.name: {"value": v.value, "low": v.low, "high": v.high, "number": v.number} for v in self.values
            },
            "failures": dict(self.failures),
            "seconds": round(self.seconds, 3),
            "mistakes": [
                {
                    "key": m.sample.key,
                    "question": m.sample.messages[-1].text,
                    "truth": m.sample.answer,
                    "said": m.said,
                    "failure": m.failure,
                }
                for m in self.mistakes
            ],
        }


def evaluate(
    model: Generator,
    tasks: Sequence[str] | None = None,
    *,
    count: int,
    side: Side = "heldout",
    seed: int = 0,
    params: SamplingParams | None = None,
    show_mistakes: int = 0,
    progress: Progress | None = None,
) -> Iterator[TaskResult]:
    """Samples 0 to `count` - 1 of each task (None: all there are), one result a task as it is done.

    Raises InvalidParams for a task that is not there.
    """
    from qwen3vl.train.synthetic.registry import make_sample, task_named
    from qwen3vl.train.synthetic.registry import tasks as all_tasks

    if count < 1:
        raise InvalidParams(f"count={count} is below 1")
    names = list(all_tasks()) if tasks is None else list(dict.fromkeys(tasks))
    for name in names:
        task_named(name)
    for name in names:
        samples = (make_sample(name, side, seed, i) for i in range(count))
        yield evaluate_task(
            model, name, samples, count=count, params=params, show_mistakes=show_mistakes, progress=progress
        )


def evaluate_task(
    model: Generator,
    task: str,
    samples: Iterable[SyntheticSample],
    *,
    count: int = 0,
    params: SamplingParams | None = None,
    show_mistakes: int = 0,
    progress: Progress | None = None,
) -> TaskResult:
    """The result of any samples, called `task`; `count` is only for `progress`. A sample is forgotten once scored."""
    tally = _Tally(task, show_mistakes)
    for sample, completion, seconds in _answered(model, samples, params or SamplingParams(max_tokens=MAX_TOKENS)):
        tally.take(sample, completion, seconds)
        if progress:
            progress(task, tally.number, count)
    return tally.result()


def _answered(
    model: Generator, samples: Iterable[SyntheticSample], params: SamplingParams
) -> Iterator[tuple[SyntheticSample, Completion, float]]:
    """Each sample with its answer and the seconds that were waited for it."""
    asked: deque[SyntheticSample] = deque()
    making = 0.0

    def requests() -> Iterator[Request]:
        nonlocal making
        drawn = iter(samples)
        while True:
            started = perf_counter()
            sample = next(drawn, None)
            making += perf_counter() - started
            if sample is None:
                return
            asked.append(sample)
            yield Request(sample.messages, bounded(params, sample), sample.media, sample.tools or None, id=sample.key)

    started, made = perf_counter(), 0.0
    for completion in model.generate_many(requests()):
        seconds, made = perf_counter() - started - (making - made), making
        yield asked.popleft(), completion, seconds
        started = perf_counter()
    assert not asked, f"{len(asked)} requests were not answered"


def bounded(params: SamplingParams, sample: SyntheticSample) -> SamplingParams:
    """An answer twice as long as the true one is wrong, and need not go on to `max_tokens`: a beginner often never
    ends. A token is a byte at least, so the bound, twice the true answer's bytes and 64, cuts no answer that could be
    right."""
    most = 2 * len(sample.answer.encode()) + 64
    return replace(params, max_tokens=most if params.max_tokens is None else min(most, params.max_tokens))


class _Tally:
    """Adds up one task."""

    def __init__(self, task: str, show_mistakes: int) -> None:
        self.task, self._show = task, show_mistakes
        self._seconds = 0.0
        self._scored: list[Scored] = []
        self._failures: Counter[str] = Counter()
        self._mistakes: list[Mistake] = []

    def take(self, sample: SyntheticSample, completion: Completion, seconds: float) -> None:
        error = completion.error
        said = "" if error else _said(completion)
        found: Score = score(sample, said)
        failure = type(error).__name__ if error else found.failure
        self._scored.append(Scored(sample.truth, found.metrics, found.perfect))
        self._seconds += seconds
        if failure:
            self._failures[failure] += 1
        if not error and completion.finish_reason == "length":
            self._failures["cut"] += 1
        if not found.perfect and len(self._mistakes) < self._show:
            self._mistakes.append(Mistake(sample, str(error) if error else said, failure))

    @property
    def number(self) -> int:
        return len(self._scored)

    def result(self) -> TaskResult:
        scores: dict[str, list[Metric]] = {}
        for scored in self._scored:
            for name, metric in scored.metrics.items():
                scores.setdefault(name, []).append(metric)
        return TaskResult(
            self.task,
            self.number,
            sum(scored.perfect for scored in self._scored),
            tuple(value_of(name, metrics) for name, metrics in scores.items()),
            dict(sorted(self._failures.items())),
            self._seconds,
            tuple(self._mistakes),
            tuple(self._scored),
        )


def _said(completion: Completion) -> str:
    """The answer as the model wrote it: with its tool calls, which a Generator takes out of the text."""
    raw = completion.first.raw_text
    if not completion.tool_calls or "<tool_call>" in raw:
        return raw if completion.tool_calls else completion.text
    calls = (json.dumps({"name": c.name, "arguments": c.arguments}, ensure_ascii=False) for c in completion.tool_calls)
    return "\n".join([completion.text, *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)]).strip()


def value_of(name: str, metrics: Sequence[Metric]) -> Value:
    """The metric over all these samples."""
    total = sum(metrics, Metric(0, 0))
    low, high = interval(metrics) or (None, None)
    return Value(name, total.value, low, high, sum(1 for m in metrics if m.whole))
