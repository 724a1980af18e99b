"""Where a run is written down: a file of JSON lines, TensorBoard, and the terminal."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from qwen3vl.errors import UnsupportedOption
from qwen3vl.train.reports import Progress, RunReport, StepReport

_LINE_EVERY = 10.0  # seconds between lines where there is no terminal


class JsonLog:
    """OUT/log.jsonl: one object a line, told apart by "event": begin, step, evaluation, note."""

    def __init__(self, path: Path, every: int = 1) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._every = every
        self._peak = 0.0

    def begin(self, run: RunReport) -> None:
        self._peak = run.peak
        self._write("begin", asdict(run))

    def step(self, report: StepReport) -> None:
        if report.progress.step % self._every:
            return
        values = asdict(report)
        progress = values.pop("progress")
        rate = {"tokens_per_second": round(report.tokens_per_second, 1), "share_of_peak": _share(report, self._peak)}
        self._write("step", {"step": progress["step"], **values, **rate, "all": progress})

    def evaluated(self, progress: Progress, values: Mapping[str, float]) -> None:
        self._write("evaluation", {"step": progress.step, **values})

    def note(self, text: str) -> None:
        self._write("note", {"text": text})

    def close(self) -> None:
        self._file.close()

    def _write(self, event: str, values: Mapping[str, Any]) -> None:
        line = {"event": event, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()


class TensorBoardLog:
    """OUT/tensorboard, over steps. Raises UnsupportedOption if the tensorboard package is not there."""

    def __init__(self, folder: Path, every: int = 1) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UnsupportedOption("TensorBoard needs its package: pip install 'qwen3vl[train]'")
        self._folder, self._every, self._peak = folder, every, 0.0
        self._writer: Any = None

    def begin(self, run: RunReport) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer, self._peak = SummaryWriter(str(self._folder)), run.peak  # type: ignore[no-untyped-call]

    def step(self, report: StepReport) -> None:
        if report.progress.step % self._every:
            return
        values = {"loss": report.loss, "gradient_norm": report.gradient_norm}
        values |= {f"learning_rate/{part}": rate for part, rate in report.rates.items()}
        values |= {"speed/tokens_per_second": report.tokens_per_second, "speed/peak": _share(report, self._peak)}
        if report.balance is not None:
            values["balance"] = report.balance
        self._scalars(values, report.progress.step)

    def evaluated(self, progress: Progress, values: Mapping[str, float]) -> None:
        self._scalars({f"evaluation/{name}": value for name, value in values.items()}, progress.step)

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)


class TerminalLog:
    """On stderr: a progress bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._task: Any = None
        self._end: int | None = None
        self._peak = 0.0
        self._said = 0.0

    def begin(self, run: RunReport) -> None:
        self._peak, self._end = run.peak, run.end
        for part, (some, everything) in run.values.items():
            what = "frozen" if not some else "trains" if some == everything else f"{some:,} of them train"
            self._console.print(f"{part:<9}{everything:>15,} values  {what}")
        peak = f", {run.peak / 1e9:,.0f} GFLOP/s at best" if run.peak else ""
        self._console.print(f"data      {run.data}\ndevice    {run.device}, {run.precision}{peak}", markup=False)
        if run.start.step:
            self._console.print(f"goes on behind step {run.start.step}")
        if not sys.stderr.isatty():
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), console=self._console)
        self._bar.start()
        self._task = self._bar.add_task("training", total=run.end or 1000, completed=run.start.step if run.end else 0)

    def step(self, report: StepReport) -> None:
        line = step_line(report, self._peak)
        if self._bar is not None:
            done = report.progress.step if self._end else round(1000 * report.place)
            self._bar.update(self._task, completed=done, description=line)
        elif time.monotonic() - self._said > _LINE_EVERY or report.progress.step in (1, self._end):
            self._said = time.monotonic()
            self._console.print(f"step {report.progress.step}: {line}", markup=False)

    def evaluated(self, progress: Progress, values: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._console.print(f"step {progress.step}: {shown}", markup=False)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def step_line(report: StepReport, peak: float) -> str:
    """What people want to know of a step, in one line."""
    epoch = "" if report.epoch is None else f" epoch {report.epoch:.2f}"
    share = f" {_share(report, peak):.0%} of peak" if peak else ""
    rate = max(report.rates.values(), default=0.0)
    return f"loss {report.loss:.4f} lr {rate:.1e}{epoch} {report.tokens_per_second:,.0f} tok/s{share}"


def _share(report: StepReport, peak: float) -> float:
    return round(report.flops / report.seconds / peak, 4) if peak and report.seconds else 0.0
