"""Random requests without pause: answers, aborts, bad media, callers who leave, and a cache that is always too small.

    python benchmarks/soak.py --minutes 30
    python benchmarks/soak.py --minutes 30 --model FOLDER --callers 16

Exit code 0: every request got an answer or the error that belongs to it, all blocks and all promised memory are
free, and the process is no larger at the end than after the first third. The model is the shrunken 4B with random
weights unless a folder is named.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import io
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import qwen3vl
from qwen3vl.engine.engine import Engine
from qwen3vl.errors import ContextTooLong, GenerationError, InvalidMessage, InvalidRequest, MediaError, Qwen3VLError
from qwen3vl.model.editions import edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint
from qwen3vl.types import (
    Completion,
    ImagePart,
    MediaOptions,
    Message,
    Part,
    Request,
    SamplingParams,
    TextPart,
    VideoPart,
)
from qwen3vl.vlm import VLM

GROWTH_MIB = 48  # that the process may grow between the first third and the end: allocators keep a little
LONG_WAIT = 600  # seconds without an answer: something hangs


@dataclass
class Tally:
    """What became of the requests; every caller adds to it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, outcome: str) -> None:
        with self.lock:
            self.outcomes[outcome] += 1

    def complain(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)


@dataclass(frozen=True)
class Asked:
    """A request, and the errors that it may end with: an honest one with none."""

    request: Request
    errors: tuple[type[Exception], ...] = ()


def picture(dice: random.Random) -> Image.Image:
    """One of twelve contents in one of three sizes: some come again, some only look like others."""
    width, height = dice.choice([(64, 64), (96, 64), (160, 128)])
    pixels = np.random.default_rng(dice.randrange(12)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def bad_picture(dice: random.Random) -> Any:
    file = io.BytesIO()
    picture(dice).save(file, "PNG")
    cut = file.getvalue()[: dice.randrange(20, 3000)]
    strip, forbidden = Image.new("RGB", (4000, 2)), "http://127.0.0.1/a.png"
    return dice.choice([Path("there is no such file.png"), b"", b"no picture", cut, strip, forbidden])


def parts(dice: random.Random) -> Iterator[Part]:
    for _ in range(dice.choice([0, 0, 1, 1, 2])):
        yield ImagePart(picture(dice))
    if dice.random() < 0.15:
        frames = [picture(random.Random(dice.randrange(5))).resize((64, 64)) for _ in range(dice.randrange(2, 7))]
        yield VideoPart(frames, frame_rate=2.0)
    yield TextPart("word " * dice.choice([1, 1, 5, 40, 150]) + dice.choice(["?", "!", ""]))


def params(dice: random.Random) -> SamplingParams:
    sampled = dice.random() < 0.5
    return SamplingParams(
        temperature=dice.choice([0.7, 1.5]) if sampled else 0.0,
        top_k=dice.choice([None, 20]) if sampled else None,
        top_p=dice.choice([1.0, 0.8]) if sampled else 1.0,
        presence_penalty=dice.choice([0.0, 1.5]),
        repetition_penalty=dice.choice([1.0, 1.2]),
        n=dice.choice([1, 1, 1, 2, 4]),
        max_tokens=dice.choice([1, 4, 16, 60]),
        ignore_eos=dice.random() < 0.7,
        stop=dice.choice([(), (), ("a",)]),
        logprobs=dice.random() < 0.2,
        loop_guard=dice.choice(["stop", "rewind", "off"]),
        logit_bias=dice.choice([{}, {}, {1000: 60.0}]),
    )


def draw(dice: random.Random) -> Asked:
    """Nine of ten can be answered."""
    media = MediaOptions(min_pixels=1024)
    honest = [Message("user", tuple(parts(dice)))]
    match dice.randrange(30):
        case 0:
            bad = Message("user", (ImagePart(bad_picture(dice)), TextPart("What?")))
            return Asked(
                Request([bad], params(dice), media), (MediaError, InvalidMessage)
            )  # empty bytes are no picture
        case 1:
            return Asked(Request(honest, SamplingParams(max_tokens=10**7), media), (ContextTooLong,))
        case 2:
            wrong = dice.choice([SamplingParams(regex="a"), SamplingParams(logit_bias={10**6: 1.0}, max_tokens=3)])
            return Asked(Request(honest, wrong, media), (InvalidRequest,))
        case _:
            return Asked(Request(honest, params(dice), media))


class Caller(threading.Thread):
    """Asks in random ways until it is time."""

    def __init__(self, model: VLM, tally: Tally, seed: int, until: float) -> None:
        super().__init__(name=f"caller {seed}", daemon=True)
        self._model, self._tally, self._until = model, tally, until
        self._dice = random.Random(seed)

    def run(self) -> None:
        ways: list[Callable[[], None]] = [self.generate, self.generate, self.leave, self.many, self.tasks]
        while time.monotonic() < self._until:
            try:
                self._dice.choice(ways)()
            except BaseException as error:
                self._tally.complain(f"{type(error).__name__} escaped: {error}")

    def generate(self) -> None:
        asked = draw(self._dice)
        try:
            r = asked.request
            self._judge(asked, self._model.generate(r.messages, r.params, media=r.media))
        except Qwen3VLError as error:
            self._judge(asked, error)

    def leave(self) -> None:
        """Begin to listen, and go."""
        asked, pieces = draw(self._dice), self._dice.choice([0, 1, 5])
        with suppress(Qwen3VLError):
            r = asked.request
            stream = self._model.stream(r.messages, r.params, media=r.media)
            for _, _ in zip(range(pieces), stream, strict=False):
                pass
            if self._dice.random() < 0.5:
                stream.close()
        self._tally.count("left")

    def many(self) -> None:
        asked = [draw(self._dice) for _ in range(self._dice.randrange(1, 12))]
        stop_after = self._dice.choice([None, None, 1])
        answers = self._model.generate_many([a.request for a in asked])
        for index, (one, completion) in enumerate(zip(asked, answers, strict=False)):
            self._judge(one, completion.error or completion)
            if index == stop_after:
                self._tally.count("left")
                break
        answers.close()  # type: ignore[attr-defined]

    def tasks(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        await asyncio.gather(*(self._task(draw(self._dice)) for _ in range(self._dice.randrange(1, 5))))

    async def _task(self, asked: Asked) -> None:
        r = asked.request
        if self._dice.random() < 0.3:
            with suppress(Qwen3VLError):
                async with aclosing(self._model.astream(r.messages, r.params, media=r.media)) as deltas:  # type: ignore[type-var]
                    async for _ in deltas:
                        break
            self._tally.count("left")
            return
        try:
            timeout = self._dice.choice([None, None, 0.05])
            got = await asyncio.wait_for(self._model.agenerate(r.messages, r.params, media=r.media), timeout)
            self._judge(asked, got)
        except TimeoutError:
            self._tally.count("left")
        except Qwen3VLError as error:
            self._judge(asked, error)

    def _judge(self, asked: Asked, got: Completion | Qwen3VLError) -> None:
        """An answer with as many choices as were asked for; or the error that the request is there for."""
        if isinstance(got, Completion):
            n = asked.request.params.n if asked.request.params else 1
            complete = len(got.choices) == n and all(c.token_ids and c.finish_reason != "abort" for c in got.choices)
            if asked.errors or not complete:
                self._tally.complain(f"{asked} was answered with {got}")
            self._tally.count("answered")
            return
        if not isinstance(got, asked.errors) or isinstance(got, GenerationError) or not str(got):
            self._tally.complain(f"{asked} ended with {type(got).__name__}: {got}")
        self._tally.count(type(got).__name__)


def memory_mib() -> float:
    """Resident memory, after what can be given back has been."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run_callers(model: VLM, tally: Tally, seconds: float, callers: int, seed: int) -> None:
    """Until they are done; the engine is looked at all the while."""
    until = time.monotonic() + seconds
    threads = [Caller(model, tally, seed + index, until) for index in range(callers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        model._service.ask(Engine.check_integrity)
        time.sleep(0.2)
        if time.monotonic() > until + LONG_WAIT:
            tally.complain(f"{sum(t.is_alive() for t in threads)} callers wait without end: {model.metrics}")
            return


def check_rest(model: VLM, tally: Tally) -> None:
    """All is free when nobody asks."""
    service, deadline = model._service, time.monotonic() + LONG_WAIT
    gc.collect()  # streams that were dropped
    while service._tickets and time.monotonic() < deadline:
        time.sleep(0.05)
    engine = service.ask(lambda engine: engine)
    held = {
        "tickets": len(service._tickets),
        "requests": len(engine.jobs),
        "blocks": engine.blocks.num_used,
        "prepared bytes": service._budget.used,
        "preparing": model.metrics.preparing,
    }
    service.ask(Engine.check_integrity)
    if any(held.values()):
        tally.complain(f"left behind: {held}")


def soak(model: VLM, minutes: float, callers: int, seed: int) -> dict[str, Any]:
    """A third of the time to warm up, the rest to prove that nothing grows. -> what happened."""
    tally = Tally()
    run_callers(model, tally, minutes * 20, callers, seed)
    check_rest(model, tally)
    before = memory_mib()
    run_callers(model, tally, minutes * 40, callers, seed + 1000)
    check_rest(model, tally)
    after = memory_mib()
    if after > before + GROWTH_MIB:
        tally.complain(f"memory grew from {before:.0f} to {after:.0f} MiB")
    snapshot = model.metrics
    return {
        "minutes": minutes,
        "callers": callers,
        "seed": seed,
        "outcomes": dict(sorted(tally.outcomes.items())),
        "finished": snapshot.finished,
        "aborted": snapshot.aborted,
        "failed": snapshot.failed,
        "prompt_tokens": snapshot.prompt_tokens,
        "answer_tokens": snapshot.answer_tokens,
        "prefix_hit_rate": round(snapshot.prefix_hit_rate, 3),
        "vision_hit_rate": round(snapshot.vision_hit_rate, 3),
        "memory_mib_after_a_third": round(before, 1),
        "memory_mib_at_the_end": round(after, 1),
        "wrong": tally.wrong[:20],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a folder; otherwise the shrunken 4B with random weights")
    parser.add_argument("--kv-memory", default="2MiB", help="small, so that answers are preempted all the time")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model
        if folder is None:
            folder = write_random_checkpoint(edition("4b", shrink=True), Path(scratch) / "model", dtype=torch.float32)
        with qwen3vl.load(folder, device="cpu", kv_memory=options.kv_memory, vision_cache="256KiB") as model:
            report = soak(model, options.minutes, options.callers, options.seed)
    print(json.dumps(report, indent=2))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
