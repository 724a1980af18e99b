"""Pictures into code: web pages, diagrams and charts (cookbooks/mmcode.ipynb), drawn and mended in rounds.

code    prompt, generate, take the source, draw it, compare, and ask again
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import get_args

from PIL import Image

from qwen3vl.errors import InvalidParams, ParseError, RenderError
from qwen3vl.tasks.asking import answer_of, image_part, video_part
from qwen3vl.tasks.chromium import find_chromium
from qwen3vl.tasks.coding_browser import SECONDS, VIEWPORT
from qwen3vl.tasks.coding_prompts import PROMPTS, mending, question
from qwen3vl.tasks.coding_render import render
from qwen3vl.tasks.coding_similarity import similarity
from qwen3vl.tasks.coding_source import Target, read_source
from qwen3vl.tasks.drawio import read_drawio
from qwen3vl.tasks.pictures import open_picture
from qwen3vl.types import (
    Generator,
    ImagePart,
    MediaOptions,
    MediaReceipt,
    Message,
    PictureSource,
    SamplingParams,
    VideoPart,
    VideoSource,
)

PARAMS = SamplingParams(max_tokens=16384)  # the cookbook's length; greedy, where it samples at 0.8
ENOUGH = 0.995  # a rendering this close is not mended
VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v")


@dataclass(frozen=True, slots=True)
class Round:
    """One attempt.

    Attributes:
        number: 0 is the first answer, 1 the first mend.
        source: the code; "" where the answer had none.
        rendering: its picture, or None where it was not or could not be drawn.
        similarity: of the rendering with the user's picture, 0 to 1.
        problems: what is wrong with it (told to the model in the next round); notes: what a person should know.
        complete: False when the answer was cut off.
        raw: the answer.
    """

    number: int
    source: str
    rendering: Image.Image | None
    similarity: float | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    complete: bool
    raw: str
    receipts: tuple[MediaReceipt, ...] = ()


@dataclass(frozen=True, slots=True)
class Code:
    """The best attempt, and all of them.

    Attributes:
        source, raw, rendering, similarity, problems, complete, receipts: as in Round, of the best one.
        rounds: all attempts in order.
        notes: of the best one, and why the rounds ended.
    """

    source: str
    target: Target
    raw: str
    rendering: Image.Image | None
    similarity: float | None
    problems: tuple[str, ...]
    complete: bool
    rounds: tuple[Round, ...]
    notes: tuple[str, ...]
    receipts: tuple[MediaReceipt, ...] = ()


@dataclass(frozen=True, slots=True)
class _Job:
    model: Generator
    shown: ImagePart | VideoPart
    picture: Image.Image | None  # the user's, to compare with
    target: Target
    prompt: str
    run: bool
    viewport: tuple[int, int]
    seconds: float
    params: SamplingParams
    media: MediaOptions | None


def code(
    model: Generator,
    image_or_video: PictureSource | VideoSource | ImagePart | VideoPart,
    target: Target = "html",
    *,
    rounds: int = 0,
    run: bool = False,
    draw: bool = True,
    prompt: str | None = None,
    viewport: tuple[int, int] | None = None,
    seconds: float = SECONDS,
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
) -> Code:
    """Code that draws what the picture or video shows.

    Args:
        rounds: how often the model is shown what its code looks like and asked to mend it; ends early when
            the likeness does not grow. Only for pictures.
        run: allow Python code to run, in a subprocess with limits (coding_python.py). Never otherwise.
        draw: False leaves the rendering out, and needs no browser.
        prompt: replaces the question.
        viewport: (width, height) of the window for HTML; the picture's own size if None.
        seconds: for each rendering.

    Raises ParseError when the first answer holds no code. A rendering that fails is no error: it is a problem
    of its round. RenderError only where there is no browser at all.
    """
    job = _job(model, image_or_video, target, run, prompt, viewport, seconds, params or PARAMS, media)
    _check(job, rounds, draw)
    attempts = [_attempt(job, 0, [question(job.shown, job.prompt, job.target)], draw)]
    best, why = attempts[0], ""
    while len(attempts) <= rounds and not why:
        if best.similarity is not None and best.similarity >= ENOUGH:
            why = f"stopped after round {len(attempts) - 1}: the likeness is {best.similarity:.3f}"
            break
        mended = _attempt(job, len(attempts), _mending(job, attempts[-1], best), draw)
        attempts.append(mended)
        why = _ending(mended, best)
        best = mended if _rank(mended) > _rank(best) else best
    return _result(job, best, attempts, why)


def _result(job: _Job, best: Round, attempts: list[Round], why: str) -> Code:
    if not best.source:
        raise ParseError(best.problems[0], raw=best.raw)
    notes = (*best.notes, why) if why else best.notes
    if len(attempts) > 1:
        notes = (*notes, f"round {best.number} of {len(attempts) - 1} is the best")
    return Code(
        best.source, job.target, best.raw, best.rendering, best.similarity, best.problems, best.complete,
        tuple(attempts), notes, best.receipts,
    )  # fmt: skip


def _job(
    model: Generator, given: object, target: Target, run: bool, prompt: str | None, viewport: tuple[int, int] | None,
    seconds: float, params: SamplingParams, media: MediaOptions | None,
) -> _Job:  # fmt: skip
    if target not in get_args(Target):
        raise InvalidParams(f"target {target!r}: choose from {', '.join(get_args(Target))}")
    shown = video_part(given) if _is_video(given) else image_part(given)
    picture = open_picture(shown.image) if isinstance(shown, ImagePart) else None
    if viewport is None:
        viewport = (min(picture.width, 4096), min(picture.height, 4096)) if picture else VIEWPORT
    return _Job(model, shown, picture, target, prompt or PROMPTS[target], run, viewport, seconds, params, media)


def _is_video(given: object) -> bool:
    """By its kind or its name's ending; bytes are a picture, frames of a video come as a list or a VideoPart."""
    if isinstance(given, (VideoPart, list, tuple)):
        return True
    return isinstance(given, (str, os.PathLike)) and os.fspath(given).lower().endswith(VIDEO_SUFFIXES)


def _check(job: _Job, rounds: int, draw: bool) -> None:
    if draw and job.target != "matplotlib":
        find_chromium()  # before the model is asked
    if rounds < 0:
        raise InvalidParams(f"rounds={rounds} is negative")
    if rounds and job.picture is None:
        raise InvalidParams("rounds need a picture to compare with: a video has none")
    if rounds and not draw:
        raise InvalidParams("rounds need draw=True: the model is shown what its code looks like")
    if rounds and job.target == "matplotlib" and not job.run:
        raise InvalidParams("rounds need run=True for matplotlib: without running the code there is nothing to show")


# ------------------------------------------------------------------------------------- one round


def _attempt(job: _Job, number: int, messages: list[Message], draw: bool) -> Round:
    completion = job.model.generate(messages, job.params, media=job.media)
    answer = answer_of(completion)
    try:
        source = read_source(answer.text, job.target)
    except ParseError as error:
        return Round(number, "", None, None, (str(error),), answer.notes, False, answer.text, answer.receipts)
    notes = (*answer.notes, *source.notes)
    made = Round(number, source.text, None, None, (), notes, source.complete, answer.text, answer.receipts)
    try:
        made = replace(made, problems=read_drawio(source.text).problems if job.target == "drawio" else ())
        return _drawn(job, made) if draw else made
    except (RenderError, ParseError) as error:
        return replace(made, problems=(*made.problems, str(error)))


def _drawn(job: _Job, made: Round) -> Round:
    if job.target == "matplotlib" and not job.run:
        return replace(made, notes=(*made.notes, "not drawn: Python code is run only with run=True"))
    drawn = render(made.source, job.target, viewport=job.viewport, seconds=job.seconds, run=job.run)
    likeness = similarity(job.picture, drawn.image) if job.picture else None
    return replace(made, rendering=drawn.image, similarity=likeness, notes=(*made.notes, *drawn.notes))


def _rank(made: Round) -> tuple[bool, float, bool, int]:
    """Code before none, then likeness, then fewer faults."""
    likeness = -math.inf if made.similarity is None else made.similarity
    return bool(made.source), likeness, made.complete, -len(made.problems)


def _ending(mended: Round, best: Round) -> str:
    if best.similarity is None or (mended.similarity is not None and mended.similarity > best.similarity):
        return ""  # also where nothing could be drawn so far: it was told what was wrong, and may try again
    return f"stopped after round {mended.number}: the likeness did not grow"


def _mending(job: _Job, last: Round, best: Round) -> list[Message]:
    seen = best if best.source else last
    asked = question(job.shown, job.prompt, job.target)
    return mending(asked, job.target, seen.source, seen.raw, seen.rendering, seen.problems)
