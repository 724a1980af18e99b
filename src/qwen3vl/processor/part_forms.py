"""The forms in which callers write one part of a message, each read to the last key.

    text     {"type": "text", "text": ...}
    picture  {"type": "image", "image" | "url" | "path" | "base64": ...}
             {"type": "image_url", "image_url": URL or {"url", "detail"}}
    video    {"type": "video", "video" | "url" | "path" | "base64": ...}; "video" may be a list of frames
             {"type": "video_url", "video_url": URL or {"url"}}

"type" may be left out where a key of the same name tells it. Beside its source a part may carry the
settings of qwen-vl-utils, which become its MediaOptions.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from qwen3vl.errors import InvalidMessage, InvalidParams
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, Part, TextPart, VideoPart

_KINDS = {"text": "text", "image": "image", "image_url": "image", "video": "video", "video_url": "video"}
_SOURCE_KEYS = {
    "image": ("image", "url", "path", "base64"),
    "image_url": ("image_url",),
    "video": ("video", "url", "path", "base64"),
    "video_url": ("video_url",),
}
_FRAME_OPTIONS = ("total_pixels", "fps", "num_frames", "min_frames", "max_frames", "video_start", "video_end")
_OPTIONS = {  # key of a part -> field of MediaOptions
    "image": {key: key for key in ("min_pixels", "max_pixels")},
    "video": {key: key for key in ("min_pixels", "max_pixels", *_FRAME_OPTIONS)} | {"nframes": "num_frames"},
}
_FRAME_RATES = ("sample_fps", "raw_fps")
_LOW_DETAIL_PIXELS = 512 * 512  # OpenAI's "detail": "low" looks at a 512 x 512 version


def part_from_dict(values: Any, where: str) -> Part:
    """One part of a message's content. Raises InvalidMessage, beginning with `where`."""
    if isinstance(values, (TextPart, ImagePart, VideoPart)):
        return values
    if not isinstance(values, Mapping):
        raise InvalidMessage(f"{where}: must be a part or a dict, not {type(values).__name__}")
    form = _form(values, where)
    if form == "text":
        check_keys(values, ("type", "text"), where)
        if "text" not in values:
            raise InvalidMessage(f"{where}: text is missing")
        return TextPart(values["text"])
    return _image(values, form, where) if _KINDS[form] == "image" else _video(values, form, where)


def check_keys(values: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in values:
        if key in ("resized_height", "resized_width"):
            raise InvalidMessage(f"{where}: {key} is not supported: bound the area with min_pixels and max_pixels")
        if key not in allowed:
            raise InvalidMessage(f"{where}: unknown key {key!r} (allowed here: {', '.join(allowed)})")


def check_text(text: Any, where: str) -> None:
    if not isinstance(text, str):
        raise InvalidMessage(f"{where} must be a string, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"{where} holds half a character (a lone surrogate) at index {error.start}") from error


def check_part(part: Any, where: str) -> None:
    """Check the types inside a part, however it was made."""
    if isinstance(part, TextPart):
        check_text(part.text, f"{where}: text")
    elif isinstance(part, ImagePart):
        _check_picture(part.image, f"{where}: image")
    elif isinstance(part, VideoPart):
        _check_video(part, where)
    else:
        raise InvalidMessage(f"{where}: must be a TextPart, ImagePart or VideoPart, not {type(part).__name__}")
    media = getattr(part, "media", None)
    if media is not None and not isinstance(media, MediaOptions):
        raise InvalidMessage(f"{where}: media must be MediaOptions, not {type(media).__name__}")


def _check_picture(source: Any, where: str) -> None:
    if not isinstance(source, (str, os.PathLike, bytes, Image.Image, np.ndarray)):
        allowed = "a path, a URL, bytes, a PIL picture or an array of pixels"
        raise InvalidMessage(f"{where} must be {allowed}, not {type(source).__name__}")
    if isinstance(source, (str, bytes)) and not source:
        raise InvalidMessage(f"{where} is empty")


def _check_video(part: VideoPart, where: str) -> None:
    source, frames = part.video, is_frames(part.video)
    if not frames and not isinstance(source, (str, os.PathLike, bytes)):
        raise InvalidMessage(
            f"{where}: video must be a path, a URL, bytes or a list of frames, not {type(source).__name__}"
        )
    if not isinstance(source, os.PathLike) and not len(source):
        raise InvalidMessage(f"{where}: video is empty")
    if frames:
        for i, frame in enumerate(source):  # type: ignore[arg-type]
            _check_picture(frame, f"{where}: frame {i}")
        if part.frame_times is not None and len(part.frame_times) != len(source):  # type: ignore[arg-type]
            raise InvalidMessage(f"{where}: {len(part.frame_times)} frame_times for {len(source)} frames")  # type: ignore[arg-type]
    elif part.frame_rate is not None or part.frame_times is not None:
        raise InvalidMessage(f"{where}: frame_rate and frame_times are for lists of frames; a file has its own")


def is_frames(source: Any) -> bool:
    """A list of pictures, or one array (frames, height, width, 3)."""
    if isinstance(source, np.ndarray):
        return source.ndim == 4
    return isinstance(source, Sequence) and not isinstance(source, (str, bytes, bytearray))


# --------------------------------------------------------------------------------- pictures and videos


def _form(values: Mapping[str, Any], where: str) -> str:
    """The part's "type", or what its keys tell where that is left out."""
    form = values.get("type")
    if form is None:
        found = [key for key in _KINDS if key in values]
        if len(found) != 1:
            raise InvalidMessage(f"{where}: needs a type (one of {', '.join(_KINDS)}); its keys are {list(values)}")
        return found[0]
    if not isinstance(form, str) or form not in _KINDS:
        raise InvalidMessage(f"{where}: unknown type {form!r} (allowed: {', '.join(_KINDS)})")
    return form


def _image(values: Mapping[str, Any], form: str, where: str) -> ImagePart:
    options = _OPTIONS["image"]
    check_keys(values, ("type", *_SOURCE_KEYS[form], *options), where)
    source, detail = _source(values, form, where)
    if detail == "low" and values.get("max_pixels") is None:
        values = {**values, "max_pixels": _LOW_DETAIL_PIXELS}
    return ImagePart(source, _media(values, options, where))


def _video(values: Mapping[str, Any], form: str, where: str) -> VideoPart:
    options = _OPTIONS["video"]
    check_keys(values, ("type", *_SOURCE_KEYS[form], *options, *_FRAME_RATES), where)
    if values.get("nframes") is not None and values.get("num_frames") is not None:
        raise InvalidMessage(f"{where}: nframes and num_frames are the same setting: give one of them")
    source, _ = _source(values, form, where)
    rates = {key: _number(values[key], f"{where}: {key}") for key in _FRAME_RATES if values.get(key) is not None}
    if len(set(rates.values())) > 1:
        raise InvalidMessage(
            f"{where}: sample_fps and raw_fps differ; give the rate at which the list's frames follow each other"
        )
    if rates and not is_frames(source):
        raise InvalidMessage(f"{where}: {', '.join(rates)}: only a list of frames has a rate of its own")
    if is_frames(source) and not rates and values.get("fps") is not None:
        raise InvalidMessage(f"{where}: fps says how densely to sample; the rate of a list of frames is sample_fps")
    if is_frames(source):
        source = tuple(source)
    try:
        return VideoPart(source, _media(values, options, where), next(iter(rates.values()), None))
    except InvalidParams as error:
        raise InvalidMessage(f"{where}: {error}") from error


def _source(values: Mapping[str, Any], form: str, where: str) -> tuple[Any, str]:
    """Where the picture or video comes from, and OpenAI's `detail` ("auto" if it is not given)."""
    given = [key for key in _SOURCE_KEYS[form] if values.get(key) is not None]
    if len(given) != 1:
        raise InvalidMessage(f"{where}: needs exactly one of {', '.join(_SOURCE_KEYS[form])}; has {given or 'none'}")
    key, detail = given[0], "auto"
    source: Any = values[key]
    if key.endswith("_url") and isinstance(source, Mapping):
        check_keys(source, ("url", "detail") if form == "image_url" else ("url",), f"{where}, {key}")
        source, detail = source.get("url"), source.get("detail") or "auto"
        if detail not in ("auto", "high", "low"):
            raise InvalidMessage(f"{where}, {key}: unknown detail {detail!r} (allowed: auto, high, low)")
    if key in ("url", "image_url", "video_url") and not isinstance(source, str):
        raise InvalidMessage(f"{where}: {key} must be a URL or a path, not {type(source).__name__}")
    return (_from_base64(source, where) if key == "base64" else source), detail


def _from_base64(source: Any, where: str) -> bytes | str:
    if isinstance(source, str) and source.startswith("data:"):
        return source
    try:
        return base64.b64decode(source, validate=True)
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"{where}: base64 cannot be decoded ({error})") from error


def _media(values: Mapping[str, Any], options: Mapping[str, str], where: str) -> MediaOptions | None:
    given = {field: values[key] for key, field in options.items() if values.get(key) is not None}
    if isinstance(given.get("fps"), str):
        given["fps"] = _number(given["fps"], f"{where}: fps")
    try:
        return MediaOptions(**given) if given else None
    except InvalidParams as error:
        raise InvalidMessage(f"{where}: {error}") from error


def _number(value: Any, where: str) -> float:
    """A number, or a string that holds one: the model card writes 'sample_fps': '1'."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InvalidMessage(f"{where} must be a number, not {value!r}") from error
