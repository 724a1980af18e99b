"""The engine in a thread of its own. Everyone else leaves commands and is told of Outputs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from qwen3vl.engine.engine import Engine
from qwen3vl.engine.work import Output, Work
from qwen3vl.errors import GenerationError, Qwen3VLError

Sink = Callable[[Output], None]  # called in the model's thread; must not block
T = TypeVar("T")


class ModelThread:
    """Runs an engine from `start` to `stop`; every method may be called from any thread.

    Each request that was added gets Outputs until one that is finished, whatever happens: a model that
    fails, an abort, the end of the thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._commands: list[Callable[[Engine], None]] = []
        self._sinks: dict[str, Sink] = {}  # by request; only the thread itself touches it
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self, engine: Engine) -> None:
        # A daemon, so that an interpreter that ends does not wait for all answers: `stop` waits for one pass.
        self._thread = threading.Thread(target=self._run, args=(engine,), name="qwen3vl-model", daemon=True)
        self._thread.start()

    def add(self, work: Work, sink: Sink) -> None:
        def command(engine: Engine) -> None:
            self._sinks[work.id] = sink
            try:
                engine.add(work)
            except Qwen3VLError as error:
                self._deliver(Output(work.id, error=error))

        if not self._leave(command):
            sink(Output(work.id, error=_closed()))

    def abort(self, request_id: str) -> None:
        """Its last Output follows, unless it has ended already."""

        def command(engine: Engine) -> None:
            if (output := engine.abort(request_id)) is not None:
                self._deliver(output)

        self._leave(command)

    def ask(self, question: Callable[[Engine], T]) -> Future[T]:
        """Let the thread do something between two passes."""
        answer: Future[T] = Future()

        def command(engine: Engine) -> None:
            try:
                answer.set_result(question(engine))
            except Exception as error:
                answer.set_exception(error)

        if not self._leave(command):
            answer.set_exception(_closed())
        return answer

    def stop(self) -> None:
        """End the thread after the pass it is in; requests that are not answered get an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _leave(self, command: Callable[[Engine], None]) -> bool:
        with self._changed:
            if self._stopping:
                return False
            self._commands.append(command)
            self._changed.notify_all()
        return True

    def _run(self, engine: Engine) -> None:
        while self._turn(engine):
            pass
        for request_id in list(self._sinks):
            self._deliver(Output(request_id, error=_closed()))

    def _turn(self, engine: Engine) -> bool:
        """Commands, then a pass. Nothing stays in variables while the thread waits for the next: a request may be
        what keeps a Service alive."""
        commands = self._next_commands(engine)
        for command in commands or ():
            command(engine)
        if commands is not None and engine.has_work:
            self._step(engine)
        return commands is not None

    def _next_commands(self, engine: Engine) -> list[Callable[[Engine], None]] | None:
        """Waits while there is nothing to do; None at the end."""
        with self._changed:
            while not (self._stopping or self._commands or engine.has_work):
                self._changed.wait()
            commands, self._commands = self._commands, []
            if not self._stopping:
                return commands
        for command in commands:  # so that nobody waits for an answer to them
            command(engine)
        return None

    def _step(self, engine: Engine) -> None:
        """The engine keeps a failure to the request it belongs to. One that escapes it ends all requests there are."""
        try:
            outputs = engine.step()
        except Exception as error:
            for request_id in list(self._sinks):
                engine.abort(request_id)
                failure = GenerationError(f"the model failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                self._deliver(Output(request_id, error=failure))
            return
        for output in outputs:
            self._deliver(output)

    def _deliver(self, output: Output) -> None:
        sink = self._sinks.pop(output.request_id) if output.finished else self._sinks[output.request_id]
        sink(output)


def _closed() -> GenerationError:
    return GenerationError("the model was closed before it had answered")
