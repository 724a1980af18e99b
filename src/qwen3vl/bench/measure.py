"""The four figures of a model on a machine: reading a prompt, writing, looking, and the first word about a picture.

Each is measured several times, with the machine's peaks measured before and after; the best of each counts, since a
machine that does something else for a moment only ever makes things slower.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from qwen3vl.bench.effort import Effort, decode_effort, prefill_effort, vision_effort
from qwen3vl.engine.engine import Engine
from qwen3vl.engine.memory import kv_bytes_per_token
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.work import Work
from qwen3vl.errors import InvalidParams, UnsupportedOption
from qwen3vl.inputs import ModelInputs
from qwen3vl.kernels.cpu.probe import READ_BYTES, Peaks, Prober
from qwen3vl.settings import KvDtype, SamplingParams
from qwen3vl.turns import user_turn
from qwen3vl.types import Timings
from qwen3vl.vlm import VLM

Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        prompt: tokens that are read, and that stand before the tokens that are written.
        steps: tokens that are written; the median counts.
        picture: width and height.
        rounds: of everything.
        kv_dtype: of the cache, as for `qwen3vl.load`.
        probe_bytes: that the read probe goes over.
    """

    prompt: int = 512
    steps: int = 32
    picture: tuple[int, int] = (1024, 768)
    rounds: int = 3
    kv_dtype: KvDtype | None = None
    probe_bytes: int = READ_BYTES


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds, what they were spent on, and the least that the machine would need by its peaks."""

    name: str
    seconds: float
    units: int
    unit: str
    effort: Effort

    @property
    def rate(self) -> float:
        return self.units / self.seconds

    def share(self, peaks: Peaks) -> float:
        """Of the machine: 1 is as fast as its peaks allow."""
        return self.effort.least_seconds(peaks) / self.seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """`first_token`'s parts are in `timings`; `peak_bytes` is the process's while it ran, None where unknown."""

    peaks: Peaks
    prefill: Figure
    decode: Figure
    vision: Figure
    first_token: Figure
    timings: Timings
    peak_bytes: int | None

    @property
    def figures(self) -> tuple[Figure, ...]:
        return self.prefill, self.decode, self.vision, self.first_token


def measure(handle: VLM, plan: Plan, progress: Progress | None = None) -> Measured:
    """Load `handle`'s model if that is not done yet, and measure. Nothing else should run meanwhile.

    Raises InvalidParams if there is no room for the tokens, UnsupportedOption if the model is not on the CPU.
    """
    model, say = handle.model, progress or (lambda *_: None)
    if model.device.type != "cpu":
        raise UnsupportedOption(
            f"the model is on {model.device}, and the peaks are the CPU's: load it with --device cpu"
        )
    if plan.prompt + plan.steps > model.config.text.max_position_embeddings:
        raise InvalidParams(
            f"{plan.prompt} + {plan.steps} tokens: more than {model.config.text.max_position_embeddings}"
        )
    best, peaks, peak_bytes = None, probe(plan), 0
    _warm(handle, plan)
    for number in range(plan.rounds):
        say("Measuring", number, plan.rounds)
        reset_peak()
        now = _round(handle, plan, number)
        peak_bytes = max(peak_bytes, status_bytes("VmHWM") or 0)
        peaks = peaks.best(probe(plan))
        best = now if best is None else _better(best, now)
    assert best is not None, plan.rounds
    return replace(best, peaks=peaks, peak_bytes=peak_bytes or None)


def probe(plan: Plan) -> Peaks:
    """The best of a few; the buffer is gone afterwards, so that it is in no peak of memory."""
    prober = Prober(plan.probe_bytes)
    peaks = prober.measure()
    for _ in range(3):
        peaks = peaks.best(prober.measure())
    return peaks


def _warm(handle: VLM, plan: Plan) -> None:
    """Weights that are mapped are read from the disk when they are first used: that is loading, not answering."""
    _read_and_write(handle, replace(plan, prompt=16, steps=1), 0)
    handle.chat("Hello", [picture(64, 64, -1)], max_tokens=1)


def _round(handle: VLM, plan: Plan, number: int) -> Measured:
    model = handle.model
    width, height = plan.picture
    read, steps = _read_and_write(handle, plan, number)
    kv = kv_bytes_per_token(model.config.text, model.dtype, plan.kv_dtype or model.usual_kv_dtype)
    prefill = Figure("prefill", read, plan.prompt, "tokens", prefill_effort(model, plan.prompt))
    middle = plan.prompt + plan.steps // 2
    decode = Figure("decode", float(np.median(steps)), 1, "tokens", decode_effort(model, middle, kv))
    patches, grid = _patches(handle, plan)
    start = perf_counter()
    with torch.inference_mode():
        model.encode_visuals(patches, [grid])
    looked = vision_effort(model, len(patches))
    vision = Figure("vision", perf_counter() - start, len(patches), "patches", looked)
    start = perf_counter()
    completion = handle.chat("What is in this picture?", [picture(width, height, number)], max_tokens=1)
    seconds = perf_counter() - start
    asked = prefill_effort(model, completion.usage.prompt_tokens)
    both = Effort(looked.floats + asked.floats, looked.integers + asked.integers, looked.bytes_read + asked.bytes_read)
    first = Figure("first token", seconds, 1, "pictures", both)
    return Measured(Peaks("", 0, 0, 0, 0), prefill, decode, vision, first, completion.timings, None)


def _better(one: Measured, other: Measured) -> Measured:
    """The faster of each figure."""
    pairs = zip(one.figures, other.figures, strict=True)
    prefill, decode, vision, first = (a if a.seconds <= b.seconds else b for a, b in pairs)
    timings = one.timings if first is one.first_token else other.timings
    return Measured(one.peaks, prefill, decode, vision, first, timings, None)


def _read_and_write(handle: VLM, plan: Plan, seed: int) -> tuple[float, Sequence[float]]:
    """-> seconds to the first token of a prompt, and those of each step behind it; through an engine, alone."""
    model, settings = handle.model, EngineSettings(prefix_cache=False, max_batched_tokens=2048)
    random = np.random.default_rng(seed)
    ids_T = random.integers(0, min(100_000, model.config.text.vocab_size * 2 // 3), plan.prompt, dtype=np.int64)
    settings = replace(settings, kv_dtype=plan.kv_dtype)
    blocks = -(-(plan.prompt + plan.steps + 1) // settings.block_size) + 2
    engine = Engine(model, handle.processor.tokenizer, settings, blocks)
    params = SamplingParams(max_tokens=plan.steps + 1, ignore_eos=True, loop_guard="off")
    engine.add(Work("bench", Prompt.of(ModelInputs(ids_T, (), ()), model.config), params, plan.steps + 1))
    read, steps = None, []
    for seconds, wrote in _steps(engine):
        if read is None or not wrote:
            read = (read or 0.0) + seconds
        else:
            steps.append(seconds)
    assert read is not None and len(steps) == plan.steps, (read, len(steps))
    return read, steps


def _steps(engine: Engine) -> Iterator[tuple[float, bool]]:
    """(seconds, whether a token was written by a step that read nothing of the prompt) of each step."""
    while engine.has_work:
        reading = bool(engine.scheduler.waiting) or any(not s.is_decoding for s in engine.scheduler.running)
        start = perf_counter()
        for output in engine.step():
            if output.error is not None:
                raise output.error
        yield perf_counter() - start, not reading


def _patches(handle: VLM, plan: Plan) -> tuple[torch.Tensor, tuple[int, int]]:
    width, height = plan.picture
    inputs = handle.processor(user_turn("?", [picture(width, height, 0)]))
    _, rows, columns = inputs.visuals[0].grid_thw
    return torch.from_numpy(inputs.visuals[0].patches.read()), (rows, columns)


def picture(width: int, height: int, seed: int) -> bytes:
    """A JPEG with something of a photograph's detail; another one for each seed, so that no cache knows it."""
    from PIL import Image

    random = np.random.default_rng(seed + 1)
    rough = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((width, height))
    grain = random.integers(-12, 13, (height, width, 1))
    pixels = (np.asarray(rough, np.int16) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def status_bytes(field: str) -> int | None:
    """VmHWM or VmRSS of this process; None on systems without /proc."""
    try:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def reset_peak() -> None:
    """VmHWM counts from here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # then it counts from the start of the process
