"""Many callers, one model: each gets its own answer or its own error, whoever comes, goes, fails or stops listening."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qwen3vl import reference
from qwen3vl.engine import loop_guard
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.service import Service
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.streams import MOST_AHEAD, MOST_KEPT, Stream, agenerate, astream, generate_many
from qwen3vl.engine.work import Output
from qwen3vl.errors import (
    ContextTooLong,
    GenerationError,
    InvalidMessage,
    InvalidParams,
    InvalidRequest,
    MediaDecodeError,
    MediaNotFound,
    Qwen3VLError,
    UnsupportedOption,
)
from qwen3vl.processor.processor import Processor
from qwen3vl.types import Completion, ImagePart, MediaOptions, Message, Request, SamplingParams, TextPart
from tests import models

SMALL = MediaOptions(min_pixels=1024)
SETTINGS = EngineSettings(block_size=4, max_batched_tokens=64, max_sequences=8, kv_memory=32 * 2**20)


@cache
def processor() -> Processor:
    return Processor.from_folder(models.folder("4b"))


def make_service(load: Callable[[], Any] | None = None, settings: EngineSettings = SETTINGS) -> Service:
    model = models.ours(models.folder("4b"))
    return Service(processor(), model.config, load or (lambda: model), name="tiny", settings=settings)


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    service = make_service()
    yield service
    service.close()


@pytest.fixture
def service(shared: Service) -> Iterator[Service]:
    """At the end of every test nothing is left of its requests."""
    shared.forget()
    yield shared
    assert settled(shared)


def settled(service: Service) -> bool:
    """Nobody waits, no block is in use, no memory is promised; blocks all accounted for."""

    def nothing(engine: Engine) -> bool:
        engine.check_integrity()
        return not (engine.has_work or engine.blocks.num_used or engine.runner._looking)

    deadline = time.monotonic() + 60
    while not (service.ask(nothing) and not service._tickets and not service._budget.used):
        assert time.monotonic() < deadline, (service._tickets, service._budget.used)
        time.sleep(0.01)
    return service.metrics.snapshot().preparing == 0


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def question(text: str, *pictures: Any, num_tokens: int = 6, **settings: Any) -> Request:
    message = Message("user", (*map(ImagePart, pictures), TextPart(text)))
    return Request([message], SamplingParams(max_tokens=num_tokens, **settings), SMALL)


def endless(text: str = "Write on and on.", *pictures: Any) -> Request:
    return question(text, *pictures, num_tokens=4000, ignore_eos=True, loop_guard="off")


def answer(service: Service, request: Request) -> Completion:
    with Stream(service, request) as stream:
        stream.begin()
        return stream.result()


def expected_ids(request: Request) -> tuple[int, ...]:
    inputs = processor()(request.messages, media=request.media)
    assert request.params is not None and request.params.max_tokens is not None
    model = models.ours(models.folder("4b"))
    return tuple(reference.generate_greedy(model, inputs, request.params.max_tokens, eos_ids=()))


# ------------------------------------------------------------------------------------------ together


MIXED = [
    question("One.", ignore_eos=True),
    question("What is this?", picture(1), ignore_eos=True, num_tokens=8),
    question("What is this?", picture(2), ignore_eos=True),
    question("Both?", picture(2), picture(1, (64, 64)), ignore_eos=True, num_tokens=4),
    question("A longer question, so that it is read in two passes. " * 6, ignore_eos=True, num_tokens=3),
]


def test_together_as_alone(service: Service) -> None:
    """In threads, in one thread and in an event loop; all of it while something else runs."""
    expected = [expected_ids(request) for request in MIXED]
    got: list[Any] = [None] * len(MIXED)

    def ask(index: int) -> None:
        got[index] = answer(service, MIXED[index]).token_ids

    async def gather() -> list[Completion]:
        return await asyncio.gather(*(agenerate(service, request) for request in MIXED))

    with Stream(service, endless()) as beside:
        next(beside)
        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(MIXED))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == expected
        assert [reply.token_ids for reply in generate_many(service, MIXED)] == expected
        assert [reply.token_ids for reply in asyncio.run(gather())] == expected
        assert next(beside).text
    assert service.metrics.snapshot().running <= SETTINGS.max_sequences


def test_receipts_say_which_cache_served(service: Service) -> None:
    request = question("What is this?", picture(7))
    moved = question("What is this?", picture(8), picture(7))
    replies = [answer(service, r) for r in (request, request, moved)]
    assert [[receipt.cache for receipt in reply.receipts] for reply in replies] == [
        [None],
        ["prefix"],
        [None, "vision"],
    ]
    snapshot = service.metrics.snapshot()
    assert snapshot.prefix_tokens_found >= replies[1].usage.cached_tokens > 0 and snapshot.visuals_found >= 1


# -------------------------------------------------------------------------------- leaving early, aborts


@pytest.mark.parametrize("how", ["close", "drop", "interrupt"])
@pytest.mark.parametrize("num_pieces", [0, 2])
def test_who_stops_listening_ends_only_his_own_request(service: Service, how: str, num_pieces: int) -> None:
    def interrupt(what: str, done: int, of: int) -> None:
        if how == "interrupt" and num_pieces == 0:
            raise KeyboardInterrupt

    other = Stream(service, MIXED[1])
    stream = Stream(service, endless("Write.", picture(3)), interrupt)
    for _ in range(num_pieces):
        next(stream)
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "interrupt":
        if num_pieces:
            stream._outputs = _Interrupted()  # type: ignore[assignment]
            stream._deltas.clear()
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    del stream
    gc.collect()
    assert other.result().token_ids == expected_ids(MIXED[1])


class _Interrupted:
    """A queue on which Ctrl-C comes."""

    def get(self) -> Output:
        raise KeyboardInterrupt


def test_abort_from_elsewhere_is_an_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who listens gets what there is, with finish_reason "abort": running, or still in preparation."""
    running = Stream(service, endless())
    first = next(running)
    assert running._ticket is not None
    service.abort(running._ticket)
    *_, last = running
    assert last.completion is not None and last.completion.text.startswith(first.text)
    assert (last.finish_reason, last.completion.finish_reason) == ("abort", "abort")

    begun, go_on = threading.Event(), threading.Event()
    work = service._preparer.work

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return work(*args)

    monkeypatch.setattr(service._preparer, "work", slow)
    preparing = Stream(service, question("What?", picture(4), n=2))
    assert begun.wait(60) and service.metrics.snapshot().preparing == 1
    assert preparing._ticket is not None
    service.abort(preparing._ticket)
    completion = preparing.result()
    assert [choice.finish_reason for choice in completion.choices] == ["abort", "abort"] and completion.text == ""
    go_on.set()


def test_a_cancelled_task_ends_its_request(service: Service) -> None:
    async def cancel_one() -> Completion:
        other = asyncio.create_task(agenerate(service, MIXED[1]))
        task = asyncio.create_task(agenerate(service, endless()))
        while service.metrics.snapshot().running < 2 and not other.done():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await other

    assert asyncio.run(cancel_one()).token_ids == expected_ids(MIXED[1])


def test_closing_an_asynchronous_stream_ends_its_request(service: Service) -> None:
    async def some() -> int:
        count = 0
        async with aclosing(astream(service, endless())) as deltas:  # type: ignore[type-var]
            async for _ in deltas:
                count += 1
                if count == 3:
                    break
        return count

    assert asyncio.run(some()) == 3


def test_an_event_loop_that_is_closed_is_no_harm(service: Service) -> None:
    async def begin() -> None:
        deltas = astream(service, endless())
        await anext(deltas)
        asyncio.get_running_loop().stop()
        await asyncio.sleep(60)

    loop = asyncio.new_event_loop()
    with pytest.raises(RuntimeError):
        loop.run_until_complete(begin())
    loop.close()
    assert answer(service, MIXED[0]).token_ids == expected_ids(MIXED[0])
    for ticket in list(service._tickets.values()):
        service.abort(ticket)


# --------------------------------------------------------------------------------- many in one call


def test_many_keep_their_order_their_names_and_their_errors(service: Service, tmp_path: Path) -> None:
    bad = io.BytesIO()
    picture(1, (300, 300)).save(bad, "PNG")
    requests = [
        question("Long.", num_tokens=25, ignore_eos=True),
        question("Look.", tmp_path / "none.png"),
        question("Look.", bad.getvalue()[:3000]),
        Request([{"role": "user", "content": "Two.", "colour": 1}]),
        question("No.", regex="a"),
        question("No.", logit_bias={151_936: 1.0}),
        question("word " * 40, num_tokens=10**6),
        question("Short.", num_tokens=2),
    ]
    requests = [Request(r.messages, r.params, r.media, id=str(i)) for i, r in enumerate(requests)]
    told: list[tuple[str, int, int]] = []
    replies = list(generate_many(service, requests, lambda *progress: told.append(progress)))
    assert [reply.id for reply in replies] == [request.id for request in requests]
    kinds = [None, MediaNotFound, MediaDecodeError, InvalidMessage, UnsupportedOption, InvalidParams, ContextTooLong]
    assert [reply.error and type(reply.error) for reply in replies] == [*kinds, None]
    assert [len(replies[i].token_ids) for i in (0, 7)] == [25, 2]
    assert told == [("answers", done, len(requests)) for done in range(1, len(requests) + 1)]
    with pytest.raises(MediaNotFound, match=r"none\.png"):
        _ = replies[1].text


def test_many_are_taken_a_little_ahead_and_closing_ends_them(service: Service) -> None:
    taken = itertools.count()
    answers = generate_many(service, (question(f"Number {i}.", num_tokens=2) for i in taken))
    for _ in range(3):
        assert next(answers).error is None
    answers.close()  # type: ignore[attr-defined]
    # An end is counted behind the answer, and another request taken behind that: of three, one is sure to be replaced.
    assert 1 + MOST_AHEAD <= next(taken) <= 3 + MOST_AHEAD + MOST_KEPT


def test_what_the_iterable_raises_reaches_the_caller(service: Service) -> None:
    def requests() -> Iterator[Request]:
        yield question("One.")
        raise OSError("the list is on a broken disk")

    with pytest.raises(OSError, match="broken disk"):
        list(generate_many(service, requests()))


# -------------------------------------------------------------------------------------- what can fail


def test_a_model_that_fails_fails_for_those_who_run_and_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = service.ask(lambda engine: engine)
    running = [Stream(service, endless()), Stream(service, endless("Other."))]
    for stream in running:
        next(stream)
    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "run", lambda batch: 1 / 0)
        for stream in running:
            with pytest.raises(GenerationError, match="ZeroDivisionError") as caught:
                list(stream)
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert answer(service, MIXED[0]).token_ids == expected_ids(MIXED[0])
    assert service.metrics.snapshot().failed >= 2


def test_a_mistake_outside_the_model_ends_those_who_are_there(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = service.ask(lambda engine: engine)
    running = Stream(service, endless())
    next(running)
    with monkeypatch.context() as patch:
        patch.setattr(engine.scheduler, "schedule", lambda: 1 / 0)
        with pytest.raises(GenerationError, match="ZeroDivisionError"):
            list(running)
    assert answer(service, MIXED[0]).token_ids == expected_ids(MIXED[0])


def test_broken_logits_fail_for_their_own_request(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = service.ask(lambda engine: engine)
    run = engine.runner.run

    def broken(batch: Any) -> torch.Tensor:
        logits_RV = run(batch)
        for row, (_, sequence) in enumerate(batch.writing):
            if sequence.prompt.num_tokens > 60:
                logits_RV[row, 5] = torch.nan
        return logits_RV

    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "run", broken)
        replies = list(generate_many(service, [MIXED[0], MIXED[4], MIXED[1]]))
    assert [type(reply.error) for reply in replies] == [type(None), GenerationError, type(None)]
    assert replies[2].token_ids == expected_ids(MIXED[1])


def test_the_loader_fails_for_everyone_who_needs_it_and_may_be_tried_again() -> None:
    attempts = itertools.count()

    def load() -> Any:
        if next(attempts) < 2:
            raise InvalidParams("no memory for these weights")
        return models.ours(models.folder("4b"))

    service = make_service(load)
    with pytest.raises(MediaNotFound):
        answer(service, question("Look.", "none.png"))
    assert next(attempts) == 0  # what is wrong with a request is known before
    attempts = itertools.count(1)
    replies = list(generate_many(service, [MIXED[0], question("Look.", "none.png")]))
    assert [type(reply.error) for reply in replies] == [InvalidParams, MediaNotFound]
    assert answer(service, MIXED[0]).token_ids == expected_ids(MIXED[0])
    assert settled(service)
    service.close()


def test_what_no_cache_of_this_size_can_hold_is_refused_with_what_would_help(service: Service) -> None:
    num_tokens = service.ask(lambda engine: engine.blocks.num_blocks) * SETTINGS.block_size
    with pytest.raises(ContextTooLong, match=rf"the key/value cache of 32.0 MiB holds {num_tokens}.* kv_memory="):
        answer(service, question("Write.", num_tokens=num_tokens))
    service = make_service(settings=replace(SETTINGS, kv_memory=2**18))
    reply = answer(service, Request("Write.", SamplingParams(ignore_eos=True)))  # as many as there is room for
    assert reply.usage.prompt_tokens + reply.usage.completion_tokens == 64 and reply.finish_reason == "length"
    service.close()


# ------------------------------------------------------------------------------------ bounded memory


def test_what_is_prepared_waits_its_turn_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two pictures, two are prepared at a time; text goes past them."""
    service = make_service()
    service.load()
    size = service._preparer.needs(MIXED[1], service._capacity).media_bytes
    service._budget.limit = 2 * size
    held: list[int] = []
    work = service._preparer.work

    def watched(*args: Any) -> Any:
        held.append(service._budget.used)
        return work(*args)

    monkeypatch.setattr(service._preparer, "work", watched)
    requests = [question(f"Number {i}.", picture(i)) for i in range(6)]
    streams = [Stream(service, request) for request in requests]
    assert answer(service, MIXED[0]).token_ids == expected_ids(MIXED[0])
    assert [stream.result().token_ids for stream in streams] == [expected_ids(request) for request in requests]
    assert len(held) == 7 and max(held) == 2 * size and settled(service)
    large = question("Large.", picture(1, (640, 640)))
    assert answer(service, large).receipts[0].num_tokens == 400  # more than the limit alone: it goes alone
    assert settled(service)
    service.close()


# --------------------------------------------------------------------------------- rewinds, preemption


def test_a_loop_is_taken_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token 1000 over and over: taken back, the next best comes, and what follows is read behind that."""
    monkeypatch.setattr(loop_guard, "EVIDENCE", 24)
    bias = {1000: 50.0, 1001: 40.0}
    settings: dict[str, Any] = dict(num_tokens=200, ignore_eos=True, logit_bias=bias, logprobs=True)
    stopped = answer(service, question("Write.", picture(1), **settings)).choices[0]
    assert (stopped.token_ids, stopped.finish_reason, stopped.stop_reason) == ((1000,) * 24, "stop", "repetition")

    request = question("Write.", picture(1), loop_guard="rewind", **settings)
    with Stream(service, request) as stream:
        *pieces, last = stream
    assert last.completion is not None
    choice = last.completion.choices[0]
    assert choice.token_ids == (1000, 1001) * 3 + (1000,) * 24 and choice.stop_reason == "repetition"
    assert "".join(piece.text for piece in pieces) == choice.text
    inputs = processor()(request.messages, media=request.media)
    model = models.ours(models.folder("4b"))
    logits_TV = reference.all_logits(model, inputs, choice.token_ids)[inputs.num_tokens - 1 : -1]
    assert choice.logprobs is not None
    theirs = logits_TV.log_softmax(-1)[range(len(choice.token_ids)), list(choice.token_ids)]
    assert [p.logprob for p in choice.logprobs] == pytest.approx(theirs.tolist(), abs=1e-4)


def test_preemption_loses_nothing(service: Service) -> None:
    """A cache of 14 blocks for two requests that need 17 together at their ends: they take turns."""
    bytes_per_block = 2**15 * SETTINGS.block_size // 8
    tight = make_service(settings=replace(SETTINGS, kv_memory=14 * bytes_per_block))
    requests = [question("Write.", n=2, num_tokens=16, ignore_eos=True, temperature=1.0, seed=i) for i in range(2)]
    together = list(generate_many(tight, requests))
    assert tight.ask(lambda engine: engine.blocks.num_blocks) == 14
    assert settled(tight)
    tight.close()
    for reply, request in zip(together, requests, strict=True):
        assert [c.token_ids for c in reply.choices] == [c.token_ids for c in answer(service, request).choices]


# ------------------------------------------------------------------------------------------- the end


def test_close_ends_everything_with_an_error() -> None:
    service = make_service()
    stream = Stream(service, endless())
    next(stream)
    threading.Timer(0.05, service.close).start()
    with pytest.raises(GenerationError, match="closed"):
        list(stream)
    with pytest.raises(InvalidRequest, match="closed"):
        Stream(service, MIXED[0])
    service.close()  # twice is no harm


def test_a_stream_that_is_not_being_read_hears_of_the_end() -> None:
    service = make_service()
    stream = Stream(service, endless())
    next(stream)
    service.close()
    with pytest.raises(GenerationError, match="closed"):
        list(stream)


def test_a_service_that_nobody_holds_goes_away_with_its_threads() -> None:
    before = threading.active_count()
    service = make_service()
    answer(service, MIXED[1])
    gone = weakref.ref(service)
    del service
    deadline = time.monotonic() + 30
    while gone() is not None or threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()
        gc.collect()
        time.sleep(0.01)


LEAVING = """
import sys
from qwen3vl import load
from qwen3vl.types import Request, SamplingParams
model = load(sys.argv[1], device="cpu")
params = SamplingParams(max_tokens=100_000, ignore_eos=True, loop_guard="off")
many = model.generate_many(Request("Write.", params) for _ in range(50))
stream = model.stream("Write.", params)
next(stream)
print("leaving", flush=True)
"""


def test_an_interpreter_may_end_while_requests_run() -> None:
    command = [sys.executable, "-c", LEAVING, str(models.folder("4b"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_errors_are_of_the_tree(service: Service) -> None:
    """What is not meant to happen while a request is prepared is told as itself, and as a GenerationError in a list."""
    broken = Request([Message("user", (ImagePart(3), TextPart("?")))])  # type: ignore[arg-type]
    with pytest.raises(Qwen3VLError):
        answer(service, broken)
