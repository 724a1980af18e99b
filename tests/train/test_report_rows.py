"""The rows of the table: what is pooled, and what is left out."""

from __future__ import annotations

import pytest

from qwen3vl.train.evaluation import evaluate
from qwen3vl.train.report_rows import ROWS, TASKS, Row, rows_of
from qwen3vl.train.synthetic.registry import make_sample, task_named
from qwen3vl.train.synthetic.sample import NumberTruth
from qwen3vl.types import Request
from tests.contract.cli_runner import Runner
from tests.fixtures.fake_generator import FakeGenerator


def key(request: Request) -> tuple[str, int]:
    assert request.id
    _, task, _, index = request.id.split("/")
    return task, int(index)


def test_rows_are_of_known_tasks_each_in_one_row() -> None:
    assert len(ROWS) == 11 and len(set(TASKS)) == len(TASKS)
    for task in TASKS:
        task_named(task)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.tasks[0])
def test_every_task_of_a_row_has_its_metric(row: Row) -> None:
    perfect = 0.0 if row.metric.endswith("error") else 1.0
    assert row.reached(row.aim) and row.reached(perfect) and not row.reached(1 - perfect)
    model = FakeGenerator(lambda request: make_sample(key(request)[0], "heldout", 0, key(request)[1]).answer)
    (result,) = rows_of(evaluate(model, row.tasks, count=2))
    assert result.value.number == sum(
        row.takes(make_sample(task, "heldout", 0, i).truth) for task in row.tasks for i in range(2)
    )
    assert result.value.value == perfect


def test_pooling() -> None:
    """Of count and count_boxes only what counts to ten; a wrong answer beyond is not seen."""
    counting = next(row for row in ROWS if row.most == 10)

    def answer(request: Request) -> str:
        task, index = key(request)
        sample = make_sample(task, "heldout", 0, index)
        assert isinstance(sample.truth, NumberTruth)
        return "100" if sample.truth.value > 10 or (task, index) == ("count", 1) else sample.answer

    results = list(evaluate(FakeGenerator(answer), ("count", "count_boxes"), count=20))
    beyond = sum(s.truth.value > 10 for r in results for s in r.scored if isinstance(s.truth, NumberTruth))
    assert beyond > 0
    (row,) = rows_of(results, [counting])
    assert (row.value.number, row.perfect) == (40 - beyond, 39 - beyond)
    assert row.value.value == (39 - beyond) / (40 - beyond)
    assert rows_of(results[:1]) == ()  # half a row is none


def test_the_command_shows_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = FakeGenerator(lambda request: make_sample(key(request)[0], "heldout", 0, key(request)[1]).answer)
    model.generate_many = lambda requests, progress=None: map(model._answer, requests)  # type: ignore[method-assign]
    monkeypatch.setattr("qwen3vl.cli.options.ModelOptions.load", lambda *_: model)
    run = Runner(capsys, monkeypatch)
    ran = run("eval", "synthetic", "--tasks", "read_line,count", "--count", 2)
    assert ran.code == 0 and "reading a line" in ran.out and "<= 3%" in ran.out and "counting" not in ran.out
    document = run("eval", "synthetic", "--tasks", "read_line,count", "--count", 2, "--json").document
    (row,) = document["rows"]
    assert row["value"] == 0 and row["tasks"] == ["read_line"] and row["number"] == 2
    assert [task["task"] for task in run("eval", "synthetic", "--count", 1, "--json").document["tasks"]] == list(TASKS)
