"""From messages to the JSON of OpenAI's chat API, media included, and the receipts of what was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any

from qwen3vl.errors import UnsupportedOption
from qwen3vl.processor.fetch import display_name
from qwen3vl.processor.images import picture_options
from qwen3vl.processor.messages import as_messages, plain_json
from qwen3vl.processor.part_forms import is_frames
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.processor.resize import picture_bounds
from qwen3vl.processor.video_sampling import timestamp_text
from qwen3vl.remote.dialects import Dialect
from qwen3vl.remote.pictures import encode_picture, released_settings
from qwen3vl.remote.videos import SentFrames, encode_file, encode_frames
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, MediaReceipt, Message, Messages, Part, TextPart, ToolCall, VideoPart

_PIXELS = ("min_pixels", "max_pixels")
_FEWEST_LISTED, _MOST_LISTED = 4, 512  # frames of a list that DashScope takes


@dataclass(slots=True)
class Encoded:
    """`fields` of the request beside its messages; one receipt for each picture and video whose size is known."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    receipts: list[MediaReceipt] = field(default_factory=list)


def encode_messages(
    messages: Messages,
    media: MediaOptions | None,
    dialect: Dialect,
    policy: MediaPolicy,
    *,
    send_urls: bool = False,
    whole_videos: bool = True,
) -> Encoded:
    """The request's messages.

    Args:
        send_urls: http(s) URLs go out as they are, for the server to fetch.
        whole_videos: video files go out whole where the dialect takes them; else as frames.

    Raises:
        InvalidMessage, InvalidParams, MediaError, UnsupportedOption.
    """
    conversation = as_messages(messages)
    encoder = _Encoder(media or MediaOptions(), dialect, policy, send_urls, whole_videos and dialect.videos == "url")
    encoder.settle_processor([part for message in conversation for part in message.content])
    ids = _CallIds()
    for message in conversation:
        encoder.done.messages.append(encoder.message(message, ids))
    return encoder.done


class _CallIds:
    """Servers want an id on each call and its answer; calls that have none are numbered."""

    def __init__(self) -> None:
        self._numbers = count()
        self._open: list[str] = []

    def of_call(self, call: ToolCall) -> str:
        self._open.append(call.id if call.id is not None else f"call_{next(self._numbers)}")
        return self._open[-1]

    def of_answer(self, given: str | None) -> str:
        """The id that the tool message names, else that of the earliest call not answered yet."""
        if given is None:
            return self._open.pop(0) if self._open else f"call_{next(self._numbers)}"
        if given in self._open:
            self._open.remove(given)
        return given


class _Encoder:
    def __init__(
        self, media: MediaOptions, dialect: Dialect, policy: MediaPolicy, send_urls: bool, whole_videos: bool
    ) -> None:
        self.media, self.dialect, self.policy = media, dialect, policy
        self.send_urls, self.whole_videos = send_urls, whole_videos
        self.done = Encoded()
        self.bounds_told = False  # mm_processor_kwargs holds the bounds of all pictures

    def settle_processor(self, parts: Sequence[Part]) -> None:
        """What is told once for the whole request: only settings that are the same for all it applies to."""
        for part in parts:
            if isinstance(part, VideoPart):
                self._check_video(part)
        if self.dialect.pixel_bounds != "processor":
            return
        kwargs: dict[str, Any] = {}
        whole = [part for part in parts if isinstance(part, VideoPart) and self._goes_whole(part)]
        rates = {self.media.merged_with(part.media).fps for part in whole}
        if len(rates) > 1:
            raise UnsupportedOption(f"fps: a {self.dialect.name} server takes one fps for all videos of a request")
        if rates and (fps := rates.pop()) is not None:
            kwargs |= {"fps": fps, "do_sample_frames": True}
        options = [picture_options(part, self.media) for part in parts if isinstance(part, ImagePart)]
        bounds = {(o.min_pixels, o.max_pixels) for o in options}
        if not whole and len(bounds) == 1 and bounds != {(None, None)}:  # videos would take them for their own
            # Both, since the processor heeds them only as a pair.
            kwargs |= dict(zip(_PIXELS, picture_bounds(released_settings("image"), options[0]), strict=True))
            self.bounds_told = True
        if kwargs:
            self.done.fields["mm_processor_kwargs"] = kwargs

    def message(self, message: Message, ids: _CallIds) -> dict[str, Any]:
        values: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        if message.reasoning is not None:
            values["reasoning_content"] = message.reasoning
        if message.tool_calls:
            values["tool_calls"] = [_call(call, ids.of_call(call)) for call in message.tool_calls]
            values["content"] = values["content"] or None
        if message.role == "tool":
            values["tool_call_id"] = ids.of_answer(message.tool_call_id)
        return values

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        if all(isinstance(part, TextPart) for part in message.content):
            return message.text
        return [item for part in message.content for item in self._part(part)]

    def _part(self, part: Part) -> Iterator[dict[str, Any]]:
        if isinstance(part, TextPart):
            yield _text(part.text)
        elif isinstance(part, ImagePart):
            yield self._picture(part)
        else:
            yield from self._video(part)

    # ---------------------------------------------------------------------------------- pictures

    def _picture(self, part: ImagePart) -> dict[str, Any]:
        options = picture_options(part, self.media)
        given = {name: getattr(options, name) for name in _PIXELS if getattr(options, name) is not None}
        resize_here = bool(given) and not self.bounds_told and self.dialect.pixel_bounds != "part"
        beside = given if self.dialect.pixel_bounds == "part" else {}
        url = self._url_to_send(part.image)
        if url is not None and resize_here:
            raise UnsupportedOption(f"{', '.join(given)}: {display_name(url)} is resized only where send_urls is off")
        if url is None:
            sent = encode_picture(part.image, self.policy, self.dialect.formats, options if resize_here else None)
            url = sent.url
            self.done.receipts.append(sent.receipt)
        return {"type": "image_url", "image_url": {"url": url}, **beside}

    def _url_to_send(self, source: Any) -> str | None:
        is_url = isinstance(source, str) and source.lower().startswith(("https://", "http://"))
        return source if self.send_urls and is_url else None

    # ------------------------------------------------------------------------------------ videos

    def _goes_whole(self, part: VideoPart) -> bool:
        return self.whole_videos and not is_frames(part.video)

    def _check_video(self, part: VideoPart) -> None:
        options = self.media.merged_with(part.media)
        changed = [f.name for f in fields(options) if getattr(options, f.name) != f.default]
        if "video_markers" in changed:
            raise UnsupportedOption(f"video_markers={options.video_markers!r}: the server writes the markers")
        if not self._goes_whole(part):
            return
        refused = [name for name in changed if name not in self.dialect.video_options]
        if refused:
            raise UnsupportedOption(
                f"{', '.join(refused)}: a {self.dialect.name} server cannot be asked for that with a whole video; "
                'connect(videos="frames") samples here and sends the frames'
            )

    def _video(self, part: VideoPart) -> Iterator[dict[str, Any]]:
        url = self._url_to_send(part.video)
        if url is not None and self._goes_whole(part):
            yield _video_url(url)
            return
        file = encode_file(part, self.policy) if self._goes_whole(part) else None
        if file is not None:
            self.done.receipts.append(file.receipt)
            yield _video_url(file.url)
            return
        options = self.media.merged_with(part.media)
        frames = encode_frames(part, options, self.policy)
        rate = frames.rate if self.dialect.videos == "frame_list" else None
        if rate is not None and _FEWEST_LISTED <= len(frames.urls) <= _MOST_LISTED:
            self.done.receipts.append(frames.receipt)
            yield {"type": "video", "video": list(frames.urls), "fps": round(rate, 6)}
        else:
            self.done.receipts.append(_as_pictures(frames.receipt, options))
            yield from _behind_times(frames)


def _as_pictures(receipt: MediaReceipt, options: MediaOptions) -> MediaReceipt:
    """A note where the server, taking frames for pictures, enlarges them; a refusal where bounds were asked for."""
    width, height = receipt.resized_size
    least = released_settings("image").min_pixels
    if width * height >= least:
        return receipt
    bounds = [name for name in ("max_pixels", "total_pixels") if getattr(options, name) is not None]
    enlarged = f"frames of {width} x {height} are sent as pictures, and the server enlarges those to {least} pixels"
    if bounds:
        raise UnsupportedOption(f"{', '.join(bounds)}: {enlarged}; ask for fewer frames or more pixels")
    return replace(receipt, notes=(*receipt.notes, enlarged))


def _behind_times(frames: SentFrames) -> Iterator[dict[str, Any]]:
    """Pictures, each behind its time as text: the form of the model's video cookbook for exact moments."""
    for url, time in zip(frames.urls, frames.times, strict=True):
        yield _text(timestamp_text(time))
        yield {"type": "image_url", "image_url": {"url": url}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _video_url(url: str) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": url}}


def _call(call: ToolCall, call_id: str) -> dict[str, Any]:
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = json.dumps(plain_json(arguments, "tool call"), ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
