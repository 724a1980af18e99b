"""What a small model is measured by: two things for beginners and nine to aim at, and the generated tasks for each.

A row pools all samples of its tasks, as if they were one task: a long text weighs more than a short one. The table
that `qwen3vl eval synthetic` prints below the tasks, and that of a model card, have these rows and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen3vl.train.evaluation import TaskResult, Value, value_of
from qwen3vl.train.scoring import LOWER_IS_BETTER
from qwen3vl.train.synthetic.sample import NumberTruth, Truth


@dataclass(frozen=True, slots=True)
class Row:
    """One thing.

    Attributes:
        name: for people.
        metric: see scoring.py.
        tasks: those whose samples are pooled.
        aim: what a small model should reach.
        most: of samples whose truth is a number, only those with no greater one.
    """

    name: str
    metric: str
    tasks: tuple[str, ...]
    aim: float
    most: float | None = None

    def takes(self, truth: Truth) -> bool:
        return self.most is None or not isinstance(truth, NumberTruth) or truth.value <= self.most

    def reached(self, value: float) -> bool:
        return value <= self.aim if self.metric in LOWER_IS_BETTER else value >= self.aim


ROWS = (
    Row("one thing: its colour, its shape", "accuracy", ("first_color", "first_shape"), 0.95),
    Row("reading a word: character error", "character_error", ("read_word",), 0.03),
    Row("reading a line: character error", "character_error", ("read_line",), 0.03),
    Row("words with boxes: F1", "f1", ("spot_words_block", "spot_words_scattered"), 0.90),
    Row("shapes and widgets: F1 at overlap 0.5", "f1", ("locate", "widget_locate"), 0.85),
    Row("click on what is named: success", "success", ("widget_click",), 0.85),
    Row("counting up to ten: exact", "exact", ("count", "count_boxes"), 0.90, most=10),
    Row(
        "colour, shape, position: accuracy",
        "accuracy",
        ("question_color", "question_kind", "question_place", "question_relation"),
        0.95,
    ),
    Row("receipts: fields", "fields", ("receipt_total", "receipt_fields"), 0.85),
    Row("tables: TEDS", "teds", ("table_html_small", "table_html"), 0.85),
    Row("moments: F1 within 0.5 s", "f1_half_second", ("clip_moment_small", "clip_moment"), 0.90),
)
"""In the order of a model card's table."""

TASKS = tuple(task for row in ROWS for task in row.tasks)


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row over all samples that were asked; `perfect` of `number` answers had nothing wrong."""

    row: Row
    value: Value
    perfect: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        v, row = self.value, self.row
        return {
            "name": row.name, "metric": row.metric, "tasks": list(row.tasks), "aim": row.aim,
            "value": v.value, "low": v.low, "high": v.high, "number": v.number, "perfect": self.perfect,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


def rows_of(results: Iterable[TaskResult], rows: Sequence[Row] = ROWS) -> tuple[RowResult, ...]:
    """The rows all of whose tasks were measured."""
    by_task: Mapping[str, TaskResult] = {result.task: result for result in results}
    found = []
    for row in rows:
        if not all(task in by_task for task in row.tasks):
            continue
        measured = [by_task[task] for task in row.tasks]
        scored = [s for result in measured for s in result.scored if row.takes(s.truth)]
        metrics = [s.metrics[row.metric] for s in scored if row.metric in s.metrics]
        seconds = sum(result.seconds / result.number * sum(map(row.takes, _truths(result))) for result in measured)
        found.append(RowResult(row, value_of(row.metric, metrics), sum(s.perfect for s in scored), seconds))
    return tuple(found)


def _truths(result: TaskResult) -> list[Truth]:
    return [s.truth for s in result.scored]
