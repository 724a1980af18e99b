"""`qwen3vl eval synthetic`: what a model can do on drawn samples whose truth is exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer import Exit, Option

from qwen3vl.cli.failures import FAILED
from qwen3vl.cli.options import ModelOptions, command
from qwen3vl.cli.output import tell
from qwen3vl.cli.task_model import Asker, asking
from qwen3vl.cli.task_options import TaskOptions
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import check_choice, check_integer
from qwen3vl.types import SCHEMA_VERSION

if TYPE_CHECKING:
    from rich.table import Table

    from qwen3vl.train.evaluation import TaskResult, Value
    from qwen3vl.train.report_rows import RowResult
    from qwen3vl.train.synthetic.sample import Side

app = typer.Typer(help="Measure a model.", rich_markup_mode=None)


@app.callback()
def about() -> None:
    pass


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """Which samples are asked about."""

    tasks: Annotated[
        str | None,
        Option(help="Names behind commas, or all [default: those of the table's rows]; --list-tasks names them."),
    ] = None
    count: Annotated[int, Option(help="Samples of each task.")] = 100
    side: Annotated[str, Option(help="heldout: fonts, words, layouts never trained on; or train.")] = "heldout"
    seed: Annotated[int, Option(help="Same seed, same samples.")] = 0

    def __post_init__(self) -> None:
        check_choice("--side", self.side, ("heldout", "train"))
        check_integer("--count", self.count, minimum=1)
        check_integer("--seed", self.seed, minimum=0)

    def names(self) -> list[str]:
        """The tasks. Raises InvalidParams."""
        from qwen3vl.train.report_rows import TASKS
        from qwen3vl.train.synthetic.registry import task_named, tasks

        if self.tasks is None:
            return list(TASKS)
        if self.tasks.strip() == "all":
            return list(tasks())
        names = [name.strip() for name in self.tasks.split(",") if name.strip()]
        if not names:
            raise InvalidParams(f"--tasks {self.tasks!r}: names no task")
        for name in names:
            task_named(name)
        return names


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """A server that answers instead of a checkpoint."""

    server: Annotated[str | None, Option(metavar="URL", help="An OpenAI-compatible server instead of --model.")] = None
    server_model: Annotated[str | None, Option(help="The server's name for the model; with --server.")] = None
    api_key_env: Annotated[
        str | None, Option(metavar="NAME", help="Environment variable with the server's key [default: OPENAI_API_KEY].")
    ] = None


@command
def synthetic(
    model: ModelOptions,
    samples: SampleOptions,
    servers: ServerOptions,
    max_tokens: Annotated[int | None, Option(help="Bound on each answer [2048; twice the true one].")] = None,
    show_mistakes: Annotated[int, Option(metavar="N", help="Keep the first N wrong answers of each task.")] = 0,
    out: Annotated[Path | None, Option(metavar="DIR", help="Write results.json, and sheets of the mistakes.")] = None,
    list_tasks: Annotated[bool, Option("--list-tasks", help="Name the tasks and leave.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Ask a model about freshly drawn pictures and score its answers.

    \b
        qwen3vl eval synthetic --model small
        qwen3vl eval synthetic --model my-model --tasks all --count 200
        qwen3vl eval synthetic --model my-model --tasks count,read_line --show-mistakes 12 --out eval

    Below the tasks stand the rows of a small model's card: what it is measured by (reading, locating, clicking,
    counting ...), each over all samples of its tasks. Decoding is greedy, and the samples depend on side, seed and
    installed fonts alone.
    Intervals hold the true value in 95 of 100 cases. Exit codes: 0 done, however wrong the answers; 1 requests failed;
    2 wrong usage.
    """
    check_integer("--show-mistakes", show_mistakes, minimum=0)
    options = TaskOptions(**asdict(model), **asdict(servers), max_tokens=max_tokens)
    from qwen3vl.cli import task_output as output

    if list_tasks:
        from qwen3vl.train.synthetic.registry import tasks

        print("\n".join(tasks()))
        return
    names = samples.names()
    output.check_folder(out, "--out")
    from qwen3vl.train.evaluation import MAX_TOKENS, evaluate

    params, side = options.params(MAX_TOKENS), cast("Side", samples.side)
    with asking(options) as asker:
        results = list(
            evaluate(
                asker.generator, names, count=samples.count, side=side, seed=samples.seed, params=params,
                show_mistakes=show_mistakes, progress=asker.waiting.stage,
            )
        )  # fmt: skip
    document = _document(results, asker, samples)
    written = _write(out, results, document)
    if as_json:
        print(json.dumps({**document, "written": [str(path) for path in written]}, ensure_ascii=False, indent=2))
    else:
        _show(results, asker.name or options.model, samples)
        for path in written:
            tell(f"written: {path}")
    if any(result.errors for result in results):
        raise Exit(FAILED)


app.command("synthetic")(synthetic)


def _document(results: list[TaskResult], asker: Asker, samples: SampleOptions) -> dict[str, Any]:
    from qwen3vl.train.report_rows import rows_of

    return {
        "schema_version": SCHEMA_VERSION,
        "model": asker.name,
        "side": samples.side,
        "seed": samples.seed,
        "count": samples.count,
        "rows": [row.as_json() for row in rows_of(results)],
        "tasks": [result.as_json() for result in results],
        "seconds": round(sum(result.seconds for result in results), 3),
        "usage": asdict(asker.usage),
    }


def _write(out: Path | None, results: list[TaskResult], document: dict[str, Any]) -> list[Path]:
    written: list[Path] = []
    if out is None:
        return written
    from qwen3vl.cli.task_output import save_picture, save_text
    from qwen3vl.train.mistakes import draw_mistakes

    save_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", out / "results.json", written)
    for result in results:
        if result.mistakes:
            save_picture(draw_mistakes(result.mistakes), out / f"mistakes-{result.task}.png", written)
    return written


def _show(results: list[TaskResult], model: str, samples: SampleOptions) -> None:
    """Tables for people: one row a metric, the accuracy of single fields is left to --json; then what it comes to."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from qwen3vl.train.report_rows import rows_of

    title = f"{model}: {samples.side} side, seed {samples.seed}, {samples.count} samples a task"
    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left")
    for name in ("task", "metric", "value", "95 % interval", "perfect", "s/answer", "failures"):
        table.add_column(name, justify="right" if name in ("value", "95 % interval", "perfect", "s/answer") else "left")
    for result in results:
        failures = ", ".join(f"{count} {kind}" for kind, count in result.failures.items())
        once = (f"{result.perfect}/{result.number}", f"{result.seconds / result.number:.2f}", failures)
        for row, value in enumerate(v for v in result.values if "/" not in v.name):
            own = once if row == 0 else ("", "", "")
            table.add_row(Text(result.task if row == 0 else ""), *_cells(value), *own)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    if rows := rows_of(results):
        console.print(_in_short(rows))


def _in_short(rows: Sequence[RowResult]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name in ("in short", "value", "95 % interval", "aim", "samples", "tasks"):
        table.add_column(name, justify="right" if name in ("value", "95 % interval", "aim", "samples") else "left")
    for row in rows:
        _, value, interval = _cells(row.value)
        aim = f"{'<=' if row.value.lower_is_better else '>='} {row.row.aim:.0%}"
        table.add_row(row.row.name, value, interval, aim, str(row.value.number), ", ".join(row.row.tasks))
    return table


def _cells(value: Value) -> tuple[str, str, str]:
    name = f"{value.name} (less is better)" if value.lower_is_better else value.name
    if value.value is None or value.low is None or value.high is None:
        return name, "-", ""
    if value.name == "time_error":
        return name, f"{value.value:.2f} s", f"{value.low:.2f} - {value.high:.2f} s"
    return name, f"{value.value:.1%}", f"{value.low:.1%} - {value.high:.1%}"
