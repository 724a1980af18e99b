"""A progress bar for work that turns out to take longer than a second."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 1.0  # seconds before anything is shown
_LABELS = {"vision": "Looking", "prefill": "Reading", "answers": "Answering"}


class Waiting:
    """Shown on stderr if that is a terminal; gone without a trace when closed.

    The bar is put up by a timer, since the first stage may report nothing for a long time.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._done, self._total = 0, 0
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._closed = not sys.stderr.isatty()
        self._timer = threading.Timer(_PATIENCE, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Waiting:
        if not self._closed:
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away; it does not come back."""
        with self._lock:
            self._closed = True
            self._timer.cancel()
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def stage(self, what: str, done: int = 0, total: int = 0) -> None:
        """`done` of `total`, in units of the stage's own; a total of 0 is unknown. An engine Progress."""
        with self._lock:
            changed = self._label != (label := _LABELS.get(what, what))
            self._label, self._done, self._total = label, done, total
            self._draw(changed)

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._closed:
                return
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
            )
            console = Console(stderr=True)
            self._bar = Progress(
                *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=None)
            self._draw(changed=False)

    def _draw(self, changed: bool) -> None:
        if self._bar is None or self._task is None:
            return
        total = self._total or None
        if changed:
            self._bar.reset(self._task, description=self._label, total=total, completed=self._done)
        else:
            self._bar.update(self._task, description=self._label, total=total, completed=self._done)
