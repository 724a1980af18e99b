"""Many callers, one model: requests are prepared by a pool of threads and answered by the model's own.

    caller --add--> Ticket --Pool: headers, Budget, decoding--> Work --ModelThread--> Outputs --> the ticket's sink

What a caller sees: every request gets an answer or its own error; a caller that stops listening ends its own
request and no other; the weights are read when the first request has been checked.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.admission import check
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.memory import available_memory, default_kv_memory, kv_bytes_per_token, num_blocks
from qwen3vl.engine.metrics import Metrics
from qwen3vl.engine.model_thread import ModelThread, Sink
from qwen3vl.engine.needs import Capacity, Needs
from qwen3vl.engine.preparation import Budget, Pool, Preparer, settled
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Output, Work
from qwen3vl.errors import GenerationError, InvalidRequest, Qwen3VLError
from qwen3vl.model.deterministic import make_deterministic
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.processor import Processor
from qwen3vl.types import Choice, Completion, Delta, Request

PREPARED_SHARE = 1 / 4  # of the memory that is free at the start: for pixels and features of requests in flight
USUAL_TOKENS = 8192  # of a request: what an unstated cache has room for, times `max_sequences`
_UNKNOWN = 2**62  # tokens of a cache that is not laid out yet

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Ticket:
    """A request on its way.

    Attributes:
        sink: gets its Outputs, in other threads, until one that is finished.
        streamed: somebody reads the words as they come.
        prepared: done when its media are decoded or it was aborted, or failed with what is wrong with it.
        media_bytes: that it takes of the budget.
        stage: preparing -> parked (the model is not loaded yet) -> running -> ended.
    """

    id: str
    request: Request
    sink: Sink
    streamed: bool = False
    prepared: Future[None] = field(default_factory=Future)
    needs: Needs | None = None
    media_bytes: int = 0
    work: Work | None = None
    stage: Literal["preparing", "parked", "running", "ended"] = "preparing"


class Service:
    """One model for many threads and event loops.

    Args:
        load: gives the model when it is first needed, so that bad requests fail before it is loaded.
        name: of the model, for Completions.
        policy: where media may come from (default: local files and https).

    Attributes:
        metrics: `metrics.snapshot()` says how busy it is.
    """

    def __init__(
        self,
        processor: Processor,
        config: ModelConfig,
        load: Callable[[], Qwen3VL],
        *,
        name: str = "",
        policy: MediaPolicy | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        self.processor, self.config, self.name = processor, config, name
        self.policy, self.settings = policy or MediaPolicy.library(), settings or EngineSettings()
        self.metrics = Metrics()
        self._load = load
        self._model: Qwen3VL | None = None
        self._preparer = Preparer(processor, config, self.policy, self.settings.max_context)
        self._budget = Budget(int(available_memory().bytes * PREPARED_SHARE))
        self._capacity = Capacity.of(config, self.settings, torch.bfloat16, _UNKNOWN, 2 * self._budget.limit)
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._tickets: dict[str, Ticket] = {}
        self._ids = map("r{}".format, itertools.count())
        self._pool, self._thread = Pool(), ModelThread()
        self._finalizer = weakref.finalize(self, _stop, self._pool, self._thread)  # also when the interpreter ends

    @property
    def model(self) -> Qwen3VL:
        """The network; loaded if it is not yet."""
        self.load()
        assert self._model is not None
        return self._model

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def load(self) -> None:
        """Read the weights and lay out the cache, if that is not done yet, in this thread.

        Raises CheckpointError, UnsupportedOption, InvalidParams.
        """
        with self._loading:
            if self._model is not None:
                return
            self._check_open()
            model = self._load()
            if self.settings.deterministic:
                make_deterministic(model)
            engine, self._capacity = self._engine(model)
            self._thread.start(engine)
            with self._lock:
                self._model = model
                parked = [ticket for ticket in self._tickets.values() if ticket.stage == "parked"]
        for ticket in parked:
            self._hand_over(ticket)

    def add(self, request: Request, sink: Sink, *, streamed: bool) -> Ticket:
        """Begin a request without waiting for anything. What is wrong with it is told as an Output, too.

        Somebody has to call `load` when it is prepared.
        """
        self._check_open()
        ticket = Ticket(next(self._ids), request, sink, streamed)
        with self._lock:
            self._tickets[ticket.id] = ticket
        self.metrics.preparing(+1)
        try:
            ticket.request = settled(request)
        except Exception as error:
            self._fail(ticket, error)
        else:
            self._pool.do(partial(self._measure, ticket))
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """End a request now: its last Output has finish_reason "abort". Does nothing to one that has ended."""
        with self._lock:
            if ticket.stage == "running":
                self._thread.abort(ticket.id)
                return
        request = ticket.request
        choices = tuple(Choice("", "abort", index) for index in range(request.params.n if request.params else 1))
        completion = Completion(choices, model=self.name, id=request.id)
        self._end(ticket, Output(ticket.id, (Delta(finish_reason="abort", completion=completion),)))

    def abort_later(self, ticket: Ticket) -> None:
        """For `__del__`, which may run in the middle of anything: takes no lock."""
        if ticket.stage != "ended":
            self._pool.do_later(partial(self.abort, ticket))

    def forget(self) -> None:
        """Free what the prefix and vision caches hold of requests that have ended."""
        if self._model is not None:
            self._thread.ask(lambda engine: engine.forget()).result()

    def ask(self, question: Callable[[Engine], T]) -> T:
        """Look at the engine between two passes. The model is loaded."""
        self.load()
        return self._thread.ask(question).result()

    def close(self) -> None:
        """End all requests, after the pass that the model is in, and let go of the model. Nothing can be asked then."""
        with self._lock:
            self._finalizer.detach()
            tickets = list(self._tickets.values())
        _stop(self._pool, self._thread)
        for ticket in tickets:
            self._end(ticket, Output(ticket.id, error=GenerationError("the model was closed before it had answered")))
        self._model = None

    # --------------------------------------------------------------------------- a request's way

    def _measure(self, ticket: Ticket) -> None:
        if ticket.stage == "ended":
            return
        try:
            ticket.needs = self._preparer.needs(ticket.request, self._capacity)
        except Exception as error:
            self._fail(ticket, error)
            return
        ticket.media_bytes = ticket.needs.media_bytes
        self._budget.take(ticket.media_bytes, partial(self._pool.do, partial(self._decode, ticket)))

    def _decode(self, ticket: Ticket) -> None:
        try:
            if ticket.stage != "ended":
                ticket.work = self._preparer.work(ticket.id, ticket.request, ticket.streamed)
        except Exception as error:
            self._fail(ticket, error)
        self._hand_over(ticket)

    def _hand_over(self, ticket: Ticket) -> None:
        """To the model, if it is loaded and the request has not ended meanwhile."""
        with self._lock:
            if ticket.stage in ("preparing", "parked"):
                first, ticket.stage = ticket.stage == "preparing", "parked"
                loaded = self._model is not None
            else:
                first = loaded = False
        if ticket.stage == "ended":
            self._give_back(ticket)
            return
        if first:
            self.metrics.preparing(-1)
            ticket.prepared.set_result(None)
        if loaded:
            self._run(ticket)

    def _run(self, ticket: Ticket) -> None:
        with self._lock:
            work, needs = ticket.work, ticket.needs
            if ticket.stage != "parked" or work is None:
                return  # aborted, or handed over by somebody else
        assert needs is not None
        try:
            check(needs, self._capacity)  # once more: now it is known what the cache holds
        except Qwen3VLError as error:
            self._fail(ticket, error)
            return
        if work.params.max_tokens is None:
            work = replace(work, max_tokens=min(work.max_tokens, self._capacity.cache_tokens - work.prompt.num_tokens))
        with self._lock:
            if ticket.stage == "parked":
                ticket.stage = "running"
                self._thread.add(work, partial(self._tell, ticket))
        ticket.work = None

    def _tell(self, ticket: Ticket, output: Output) -> None:
        """In the model's thread: what a running request gets."""
        if output.finished:
            self._end(ticket, output)
        else:
            ticket.sink(output)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        told = error
        if not isinstance(told, Qwen3VLError):
            told = GenerationError(f"the request could not be prepared: {type(error).__name__}: {error}")
            told.__cause__ = error
        self._end(ticket, Output(ticket.id, error=told), error)

    def _end(self, ticket: Ticket, output: Output, error: Exception | None = None) -> None:
        """Once for every ticket: its last Output."""
        with self._lock:
            if self._tickets.pop(ticket.id, None) is None:
                return
            stage, ticket.stage = ticket.stage, "ended"
        if stage == "preparing":
            self.metrics.preparing(-1)
            if (why := error or output.error) is not None:
                ticket.prepared.set_exception(why)
            else:
                ticket.prepared.set_result(None)
        else:
            self._give_back(ticket)
        if stage == "running":
            reason = output.deltas[-1].finish_reason if output.error is None else None
            self.metrics.outcome("failed" if reason is None else "aborted" if reason == "abort" else "finished")
        ticket.sink(replace(output, deltas=tuple(_named(delta, ticket.request.id) for delta in output.deltas)))

    def _give_back(self, ticket: Ticket) -> None:
        with self._lock:
            size, ticket.media_bytes, ticket.work = ticket.media_bytes, 0, None
        if size:
            self._budget.give_back(size)

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise InvalidRequest("the model is closed")

    def _engine(self, model: Qwen3VL) -> tuple[Engine, Capacity]:
        kv_dtype, text = self.settings.kv_dtype or model.usual_kv_dtype, self.config.text
        settings = replace(self.settings, kv_dtype=kv_dtype)
        per_token = kv_bytes_per_token(text, model.dtype, kv_dtype)
        memory = settings.kv_memory
        if memory is None:
            device = model.device
            free = default_kv_memory([device] * text.num_hidden_layers, settings.vision_cache_bytes)
            context = settings.max_context or text.max_position_embeddings
            memory = min(free, per_token * max(2 * context, settings.max_sequences * USUAL_TOKENS))
        blocks = num_blocks(memory, per_token, settings.block_size)
        engine = Engine(model, self.processor.tokenizer, settings, blocks, name=self.name, metrics=self.metrics)
        tokens = blocks * settings.block_size
        return engine, Capacity.of(self.config, settings, model.dtype, tokens, 2 * self._budget.limit)


def _named(delta: Delta, request_id: str | None) -> Delta:
    """The engine's own id is of no use to the caller."""
    if delta.completion is None:
        return delta
    return replace(delta, completion=replace(delta.completion, id=request_id))


def _stop(pool: Pool, thread: ModelThread) -> None:
    pool.stop()
    thread.stop()
