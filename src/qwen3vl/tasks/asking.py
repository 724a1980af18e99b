"""What every capability shares: one question, its answer, and what must be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from qwen3vl.errors import UnsupportedOption
from qwen3vl.tasks.parsing_answers import without_reasoning
from qwen3vl.types import (
    Completion,
    Generator,
    ImagePart,
    MediaOptions,
    MediaReceipt,
    Message,
    Part,
    SamplingParams,
    TextPart,
    VideoPart,
)

PIXELS_PER_TOKEN = 32 * 32  # of a picture; the cookbooks state their limits in these units
RELEASED_LEAST = 256 * 256  # pixels of a picture, in the preprocessor_config.json of every release


@dataclass(frozen=True, slots=True)
class Answer:
    """The text to parse, and what came with it."""

    text: str
    notes: tuple[str, ...]
    receipts: tuple[MediaReceipt, ...]


def ask_once(
    model: Generator,
    parts: Sequence[Part | str],
    params: SamplingParams | None = None,
    media: MediaOptions | None = None,
    *,
    usual: MediaOptions | None = None,
    system: str | None = None,
) -> Answer:
    """One user turn. `usual` are the pixel limits of the task's cookbook, used when the caller gives no `media`
    (see `within`); a generator that cannot honour them is asked again without, and that is noted."""
    content = tuple(TextPart(p) if isinstance(p, str) else p for p in parts)
    messages = [Message("user", content)]
    if system is not None:
        messages.insert(0, Message("system", (TextPart(system),)))
    try:
        return answer_of(model.generate(messages, params, media=media or within(model, usual)))
    except UnsupportedOption as refused:
        if media is not None or usual is None:
            raise
        completion = model.generate(messages, params)
        return answer_of(completion, (f"the task's pixel limits were not used: {refused}",))


def within(model: Generator, usual: MediaOptions | None) -> MediaOptions | None:
    """A cookbook's limits for this generator. They suit the releases, whose own least area is 65,536 pixels; a
    checkpoint that says less in its preprocessor_config.json has learnt from small pictures and is not shown them
    enlarged, nor any larger than it says. One of 1,024 to 1,048,576 pixels makes 524,288 to 2,097,152 its own limits.

    Only a generator that knows has `picture_bounds`; for others the limits stay as they are."""
    bounds: tuple[int, int] | None = getattr(model, "picture_bounds", None)
    if usual is None or bounds is None:
        return usual
    least, most = bounds
    high = most if usual.max_pixels is None else min(usual.max_pixels, most)
    low = least if least < RELEASED_LEAST or usual.min_pixels is None else usual.min_pixels
    return replace(usual, min_pixels=min(low, high), max_pixels=high)


def answer_of(completion: Completion, notes: tuple[str, ...] = ()) -> Answer:
    """The first choice. Raises the completion's own error."""
    if completion.finish_reason == "length":
        notes = (*notes, "the answer was cut off at max_tokens")
    return Answer(without_reasoning(completion.text), notes, completion.receipts)


def image_part(image: object) -> ImagePart:
    """A picture as a part; a part stays as it is."""
    return image if isinstance(image, ImagePart) else ImagePart(image)  # type: ignore[arg-type]


def video_part(video: object) -> VideoPart:
    """A video as a part; a part (with its own times or settings) stays as it is."""
    return video if isinstance(video, VideoPart) else VideoPart(video)  # type: ignore[arg-type]


def words(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
