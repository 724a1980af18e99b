"""From messages to Work: checked on headers first, decoded when there is room for the pixels.

Request --headers--> Needs --admission.check--> refused, or
        --Budget: what is prepared and not answered yet stays below a limit--> decoded --> Work
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from qwen3vl.config import ModelConfig
from qwen3vl.engine.admission import check
from qwen3vl.engine.context import check_context, room_for_answer
from qwen3vl.engine.needs import Capacity, Needs, measure
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.work import Work
from qwen3vl.errors import UnsupportedOption
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.processor import Processor
from qwen3vl.processor.tokenizer import THINK_START
from qwen3vl.settings import MediaOptions, SamplingParams
from qwen3vl.types import Request, Tool

NUM_THREADS = max(2, min(8, (os.cpu_count() or 2) // 2))  # decoding leaves Python's lock, and downloads wait


class Preparer:
    """The front end of one model; its methods may be called from any thread."""

    def __init__(self, processor: Processor, config: ModelConfig, policy: MediaPolicy, max_context: int | None) -> None:
        self.processor, self.config, self.policy = processor, config, policy
        self._max_context = max_context

    def needs(self, request: Request, capacity: Capacity) -> Needs:
        """Check all that headers show.

        Raises UnsupportedOption, ContextTooLong, MediaTooLarge, and what `Processor` does.
        """
        params = request.params or SamplingParams()
        _check_options(request, params)
        media = request.media or MediaOptions()

        def measured(media: MediaOptions) -> Needs:
            return measure(
                self.processor,
                self.config,
                request.messages,
                params,
                media=media,
                tools=_shown(request),
                policy=self.policy,
            )

        needs = measured(media)
        check(needs, capacity, measured, media)
        return needs

    def work(self, request_id: str, request: Request, streamed: bool) -> Work:
        """Decode and tokenise."""
        started, params = perf_counter(), request.params or SamplingParams()
        shown = _shown(request)
        inputs = self.processor(request.messages, media=request.media, tools=shown, policy=self.policy)
        prompt = Prompt.of(inputs, self.config)
        check_context(prompt, params.max_tokens or 1, self.config, self._max_context)
        room = room_for_answer(prompt, self.config, self._max_context)
        thinking = self._ends_in_thinking(inputs.input_ids_T[-3:].tolist())
        if params.thinking_budget is not None and not thinking:
            raise UnsupportedOption("thinking_budget: this checkpoint's prompts do not begin with reasoning")
        seconds = perf_counter() - started
        return Work(request_id, prompt, params, params.max_tokens or room, thinking, bool(shown), seconds, streamed)

    def _ends_in_thinking(self, ids: list[int]) -> bool:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=False).endswith(THINK_START + "\n")


def settled(request: Request) -> Request:
    """With messages that nobody can change any more. Raises InvalidMessage."""
    return replace(request, messages=as_messages(request.messages))


def _check_options(request: Request, params: SamplingParams) -> None:
    for name in ("json_schema", "regex", "grammar"):
        if getattr(params, name) is not None:
            raise UnsupportedOption(f"{name}: constrained output is not supported yet")
    if request.tool_choice not in (None, "auto", "none"):
        raise UnsupportedOption(
            f"tool_choice={request.tool_choice!r}: forced calls need constrained output; 'auto' or 'none'"
        )


def _shown(request: Request) -> list[Tool] | None:
    """A model that shall not call is not told of tools."""
    return list(request.tools) if request.tools and request.tool_choice != "none" else None


class Budget:
    """Lets a bounded number of bytes be in use at a time; first come, first served.

    What alone is more than the limit goes when nothing else is in use. Nothing waits for 0 bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._used = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int, then: Callable[[], None]) -> None:
        """Call `then` as soon as there is room, maybe at once; `give_back` has to follow."""
        if size == 0:
            then()
            return
        with self._lock:
            self._waiting.append((size, then))
        self._go_on()

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size
            assert self._used >= 0, (self._used, size)
        self._go_on()

    def _go_on(self) -> None:
        ready = []
        with self._lock:
            while self._waiting and (self._used == 0 or self._used + self._waiting[0][0] <= self.limit):
                size, then = self._waiting.popleft()
                self._used += size
                ready.append(then)
        for then in ready:
            then()


class Pool:
    """Threads that do what they are given, in order. (concurrent.futures would finish all of it before the
    interpreter may end.)"""

    def __init__(self, num_threads: int = NUM_THREADS) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._num_threads = num_threads
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopped = False

    def do(self, task: Callable[[], None]) -> None:
        """`task` must not raise."""
        with self._lock:
            if len(self._threads) < self._num_threads and not self._stopped:
                thread = threading.Thread(target=_work_off, args=(self._tasks,), name="qwen3vl-media", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._tasks.put(task)

    def do_later(self, task: Callable[[], None]) -> None:
        """The same without a lock (SimpleQueue.put may interrupt itself), once some thread has been begun."""
        self._tasks.put(task)

    def stop(self, patience: float = 5.0) -> None:
        """Begin nothing more, and wait a while for what has begun."""
        with self._lock:
            self._stopped = True
        try:
            while True:
                self._tasks.get_nowait()
        except queue.Empty:
            pass
        for _ in self._threads:
            self._tasks.put(None)
        deadline = perf_counter() + patience
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - perf_counter()))


def _work_off(tasks: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # what it refers to may be large
