"""Evaluation with scripted generators: perfect, wrong, failing; the command line around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.errors import ContextTooLong, InvalidParams
from qwen3vl.train.evaluation import evaluate, evaluate_task
from qwen3vl.train.intervals import wilson
from qwen3vl.train.mistakes import draw_mistakes
from qwen3vl.train.synthetic.registry import make_sample
from qwen3vl.train.synthetic.sample import SyntheticSample
from qwen3vl.types import Choice, Completion, Request, SamplingParams, ToolCall
from tests.contract.cli_runner import Runner
from tests.fixtures.fake_generator import Answer, FakeGenerator

TASKS = ("count", "locate_small")


def sample_of(request: Request) -> SyntheticSample:
    assert request.id
    side, task, seed, index = request.id.split("/")
    return make_sample(task, side, int(seed), int(index))  # type: ignore[arg-type]


def right(request: Request) -> Answer:
    return sample_of(request).answer


def every_fourth_wrong(request: Request) -> Answer:
    sample = sample_of(request)
    kind = int(sample.key.rsplit("/", 1)[1]) % 8
    if kind == 0:
        return "[]" if sample.task == "locate_small" else "99"
    if kind == 4:
        return "I do not know"
    return sample.answer


def failing(request: Request) -> Answer:
    sample = sample_of(request)
    index = int(sample.key.rsplit("/", 1)[1])
    if index % 4 == 0:
        return ContextTooLong("too long")
    if index % 4 == 1:
        return ""
    return Completion((Choice(sample.answer, "length" if index % 4 == 2 else "stop"),), id=request.id)


def test_a_perfect_model_is_perfect() -> None:
    model = FakeGenerator(right)
    results = list(evaluate(model, TASKS, count=8))
    assert [r.task for r in results] == list(TASKS)
    for result in results:
        assert (result.number, result.perfect, result.failures, result.mistakes) == (8, 8, {}, ())
        assert all(value.value == (0 if value.lower_is_better else 1) for value in result.values)
    assert results[0].values[0].low == wilson(8, 8)[0]
    first = model.requests[0]
    assert first.id == "heldout/count/0/0" and first.params is not None and first.params.greedy
    true = sample_of(first).answer
    assert first.params.max_tokens == 2 * len(true) + 64  # a model that never ends need not be waited for
    list(evaluate(model, ["count"], count=1, params=SamplingParams(max_tokens=5)))
    assert model.last.params is not None and model.last.params.max_tokens == 5


def test_mistakes_are_counted_and_kept() -> None:
    counted, located = evaluate(FakeGenerator(every_fourth_wrong), TASKS, count=16, show_mistakes=3, seed=3)
    assert (counted.number, counted.perfect) == (16, 12)
    exact = next(v for v in counted.values if v.name == "exact")
    assert (exact.value, (exact.low, exact.high)) == (0.75, wilson(12, 16))
    assert counted.failures == {"unreadable": 2} and located.failures == {"unreadable": 2}
    assert [m.said for m in counted.mistakes] == ["99", "I do not know", "99"]
    assert [m.failure for m in counted.mistakes] == [None, "unreadable", None]
    assert counted.mistakes[0].sample.key == "heldout/count/3/0"
    f1 = located.values[0]
    assert f1.name == "f1" and f1.value is not None and f1.low is not None and f1.high is not None
    assert f1.low < f1.value < f1.high


def test_failures_are_counted_by_kind() -> None:
    (result,) = evaluate(FakeGenerator(failing), ["count"], count=8, show_mistakes=8)
    assert result.failures == {"ContextTooLong": 2, "cut": 2, "empty": 2}
    assert (result.errors, result.perfect) == (2, 4)
    assert next(v for v in result.values if v.name == "exact").value == 0.5
    assert result.mistakes[0].said == "too long"


def test_the_same_samples_give_the_same_result() -> None:
    one, two = ([r.as_json() | {"seconds": 0} for r in evaluate(FakeGenerator(every_fourth_wrong), TASKS, count=8)]
                for _ in range(2))  # fmt: skip
    assert one == two
    other = next(evaluate(FakeGenerator(every_fourth_wrong), TASKS, count=8, seed=1, show_mistakes=1))
    assert other.mistakes[0].sample.key == "heldout/count/1/0"


def test_tool_calls_are_scored_wherever_the_generator_puts_them() -> None:
    from tests.train.test_scoring import SAMPLES

    call = ToolCall("computer_use", {"action": "left_click", "coordinate": [200, 300]})
    taken_out = Completion((Choice("", "tool_calls", tool_calls=(call,)),))
    raw = Completion((Choice("", "tool_calls", tool_calls=(call,), raw_text=SAMPLES["action"].answer),))
    for completion in (taken_out, raw):
        result = evaluate_task(FakeGenerator([completion]), "action", [SAMPLES["action"]])
        assert result.perfect == 1


def test_unknown_tasks_and_counts() -> None:
    with pytest.raises(InvalidParams, match="no synthetic task 'nothing'"):
        next(evaluate(FakeGenerator(right), ["nothing"], count=1))
    with pytest.raises(InvalidParams, match="count=0"):
        next(evaluate(FakeGenerator(right), ["count"], count=0))


def test_the_sheet_of_mistakes() -> None:
    results = list(evaluate(FakeGenerator(every_fourth_wrong), TASKS, count=40, show_mistakes=5))
    sheet = draw_mistakes([m for r in results for m in r.mistakes], columns=3)
    assert sheet.width == 3 * 360
    colours = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    assert (0, 158, 115) in colours and (230, 120, 0) in colours


# ----------------------------------------------------------------------------------- command line


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capsys, monkeypatch)


class Local(FakeGenerator):
    """As a loaded model: it also tells how far it is."""

    def generate_many(self, requests: Iterable[Request], *, progress: object = None) -> Iterator[Completion]:
        return super().generate_many(requests)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Request], Answer]], None]:
    def use(script: Callable[[Request], Answer]) -> None:
        monkeypatch.setattr("qwen3vl.cli.options.ModelOptions.load", lambda *_: Local(script))

    return use


def test_command_for_people(run: Runner, answering: Callable[..., None]) -> None:
    answering(every_fourth_wrong)
    ran = run("eval", "synthetic", "--model", "m", "--tasks", "count, locate_small", "--count", 16, "--seed", 3)
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert next(x for x in lines if "count" in x)[:7] == ["count", "exact", "75.0%", "50.5%", "-", "89.8%", "12/16"]
    assert any(line[:2] == ["locate_small", "f1"] and "unreadable" in line for line in lines)
    assert "heldout side, seed 3, 16 samples a task" in ran.out


def test_command_as_json_with_files(run: Runner, answering: Callable[..., None], tmp_path: Path) -> None:
    answering(every_fourth_wrong)
    out = tmp_path / "new"
    ran = run("eval", "synthetic", "--tasks", "count", "--count", 8, "--side", "train", "--show-mistakes", 1,
              "--out", out, "--json")  # fmt: skip
    assert ran.code == 0
    document = ran.document
    assert document["schema_version"] == 1 and (document["side"], document["count"]) == ("train", 8)
    (task,) = document["tasks"]
    assert task["metrics"]["exact"] == {"value": 0.75, "low": pytest.approx(wilson(6, 8)[0]),
                                        "high": pytest.approx(wilson(6, 8)[1]), "number": 8}  # fmt: skip
    assert task["mistakes"][0]["key"] == "train/count/0/0" and task["mistakes"][0]["said"] == "99"
    assert document["written"] == [str(out / "results.json"), str(out / "mistakes-count.png")]
    assert json.loads((out / "results.json").read_text())["tasks"] == document["tasks"]
    assert Image.open(out / "mistakes-count.png").width == 360


def test_requests_that_fail_end_with_1(run: Runner, answering: Callable[..., None]) -> None:
    answering(failing)
    ran = run("eval", "synthetic", "--model", "m", "--tasks", "count", "--count", 4, "--max-tokens", 50)
    assert ran.code == 1 and "1 ContextTooLong" in ran.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tasks", "nothing"], "no synthetic task 'nothing'"),
        (["--tasks", ","], "names no task"),
        (["--side", "left"], "--side"),
        (["--count", "0"], "--count=0"),
        (["--server", "http://x/v1"], "--server-model"),
        (["--out", __file__], "is no folder"),
    ],
)
def test_wrong_usage(run: Runner, options: list[str], said: str) -> None:
    ran = run("eval", "synthetic", *options)
    assert ran.code == 2 and said in ran.err


def test_list_of_tasks(run: Runner) -> None:
    ran = run("eval", "synthetic", "--list-tasks")
    assert ran.code == 0 and set(TASKS) <= set(ran.out.split())
