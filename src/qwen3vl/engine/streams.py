"""How callers listen: iterators for threads, asynchronous ones for event loops, many requests in order."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sized
from contextlib import aclosing, suppress
from types import TracebackType

from qwen3vl.engine.service import Service, Ticket
from qwen3vl.engine.work import Output
from qwen3vl.errors import Qwen3VLError
from qwen3vl.types import Completion, Delta, Request

Progress = Callable[[str, int, int], None]  # (what: "vision", "prefill" or "answers", done, of; 0: not known)

MOST_AHEAD = 32  # requests of `generate_many` that are in flight: their pictures may be in memory already
MOST_KEPT = 256  # and those among them that are answered, but wait for an earlier one


class Stream(Iterator[Delta]):
    """The pieces of one answer; the last carries the Completion. Raises the request's error.

    Closing it, or dropping it, ends the request; so does Ctrl-C while waiting for a piece.

    Args:
        progress: called from `next`, in the thread that waits.
        streamed: the pieces are read as they come; False: only the end of the answer matters.
    """

    def __init__(
        self,
        service: Service,
        request: Request,
        progress: Progress | None = None,
        *,
        streamed: bool = True,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._outputs: queue.SimpleQueue[Output] = queue.SimpleQueue()
        self._service, self._progress = service, progress
        self._deltas: deque[Delta] = deque()
        self._over = False
        outputs = self._outputs

        def sink(output: Output) -> None:  # knows the queue only: a stream that is dropped must go away
            if output.finished:
                on_end()
            outputs.put(output)

        self._ticket: Ticket | None = service.add(request, sink, streamed=streamed)

    @property
    def ended(self) -> bool:
        """Whether all of its pieces are there."""
        return self._ticket is None or self._ticket.stage == "ended"

    def begin(self) -> None:
        """Wait until the request is checked and prepared, and the model is loaded. Raises what is wrong with it."""
        assert self._ticket is not None
        try:
            self._ticket.prepared.result()
            self._service.load()
        except BaseException:
            self.close()
            raise

    def __next__(self) -> Delta:
        while not self._deltas:
            if self._over:
                raise StopIteration
            self._take()
        return self._deltas.popleft()

    def result(self) -> Completion:
        """Read to the end."""
        try:
            *_, last = self
        finally:
            self.close()
        assert last.completion is not None
        return last.completion

    def close(self) -> None:
        """End the request, if it has not ended; no more pieces come. Its blocks are free before the next pass."""
        ticket, self._ticket = self._ticket, None
        self._over = True
        self._deltas.clear()
        if ticket is not None:
            self._service.abort(ticket)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        ticket = getattr(self, "_ticket", None)  # it may have been refused while it was made
        if ticket is not None:
            self._service.abort_later(ticket)

    def _take(self) -> None:
        if not (self._service.loaded or self.ended):  # a request that close() ended has its last piece already
            self.begin()
        try:
            output = self._outputs.get()
            if self._progress is not None:
                for progress in output.progress:
                    self._progress(*progress)
        except BaseException:
            self.close()
            raise
        self._over = output.finished
        if output.error is not None:
            self.close()
            raise output.error
        self._deltas.extend(output.deltas)


async def astream(service: Service, request: Request, *, streamed: bool = True) -> AsyncIterator[Delta]:
    """As a Stream, for an event loop. Cancelling, or closing the iterator, ends the request."""
    loop, outputs = asyncio.get_running_loop(), asyncio.Queue[Output]()

    def sink(output: Output) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            loop.call_soon_threadsafe(outputs.put_nowait, output)

    ticket = service.add(request, sink, streamed=streamed)
    try:
        await asyncio.shield(asyncio.wrap_future(ticket.prepared))
        if not service.loaded:
            await asyncio.to_thread(service.load)
        while True:
            output = await outputs.get()
            if output.error is not None:
                raise output.error
            for delta in output.deltas:
                yield delta
            if output.finished:
                return
    finally:
        service.abort(ticket)


async def agenerate(service: Service, request: Request) -> Completion:
    async with aclosing(astream(service, request, streamed=False)) as deltas:  # type: ignore[type-var]
        async for delta in deltas:
            last = delta
    assert last.completion is not None
    return last.completion


def generate_many(
    service: Service, requests: Iterable[Request], progress: Progress | None = None
) -> Iterator[Completion]:
    """Completions in the order of the requests, which are taken a little ahead; an error is its Completion's own.

    Args:
        progress: told ("answers", done, of), where `of` is 0 for an iterable without a length.
    """
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    window: deque[tuple[Request, Stream]] = deque()
    source, total, num_taken, num_ended = iter(requests), len(requests) if isinstance(requests, Sized) else 0, 0, 0
    try:
        while True:
            while num_taken - num_ended < MOST_AHEAD and len(window) < MOST_KEPT:
                if (request := next(source, None)) is None:
                    break
                window.append((request, Stream(service, request, streamed=False, on_end=lambda: ended.put(None))))
                num_taken += 1
            ready = not window or window[0][1].ended or not service.loaded
            while not ready or not ended.empty():
                ended.get()
                num_ended, ready = num_ended + 1, True
                if progress is not None:
                    progress("answers", num_ended, total)
            if not window:
                return
            if window[0][1].ended or not service.loaded:
                yield _answer(service, *window.popleft())
    finally:
        for _, stream in window:
            stream.close()


def _answer(service: Service, request: Request, stream: Stream) -> Completion:
    try:
        stream.begin()
        return stream.result()
    except Qwen3VLError as error:
        return Completion((), model=service.name, id=request.id, error=error)
