"""What the handles share: the turn that `chat` asks, and settings by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from qwen3vl.errors import InvalidParams
from qwen3vl.processor.messages import as_messages
from qwen3vl.settings import SamplingParams
from qwen3vl.types import ImagePart, Message, Messages, Part, PictureSource, TextPart, VideoPart, VideoSource


def user_turn(
    question: str,
    images: Sequence[PictureSource] = (),
    videos: Sequence[VideoSource] = (),
    system: str | None = None,
) -> list[Message]:
    """Messages for one question: pictures first, then videos, then the text, as the model card does."""
    if isinstance(images, (str, bytes, os.PathLike)) or isinstance(videos, (str, bytes, os.PathLike)):
        raise InvalidParams("images and videos are lists: images=['a.jpg']")
    parts: list[Part] = [*map(ImagePart, images), *map(VideoPart, videos), TextPart(question)]
    messages = [Message("system", (TextPart(system),))] if system else []
    return [*messages, Message("user", tuple(parts))]


def chat_turn(
    question: str,
    images: Sequence[PictureSource],
    videos: Sequence[VideoSource],
    system: str | None,
    history: Messages,
) -> list[Message]:
    """`user_turn` behind the earlier turns."""
    earlier = () if not history else as_messages(history)
    return [*earlier, *user_turn(question, images, videos, system)]


def chat_params(params: SamplingParams | None, settings: dict[str, Any]) -> SamplingParams:
    """`params`, or SamplingParams from `settings`, not both. Raises InvalidParams."""
    if settings and params is not None:
        raise InvalidParams(f"give params or {', '.join(settings)}, not both")
    return params or sampling_params(**settings)


def sampling_params(**settings: Any) -> SamplingParams:
    """SamplingParams from fields by name; `preset="vl"` gives the base. Raises InvalidParams for unknown names."""
    try:
        return SamplingParams.preset(settings.pop("preset", "greedy"), **settings)
    except TypeError as error:
        known = ", ".join(SamplingParams.__dataclass_fields__)
        raise InvalidParams(f"{error}; the settings are preset, {known}") from error
