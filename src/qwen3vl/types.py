"""What passes between the parts of qwen3vl, and between qwen3vl and its users: pure data.

    Message ─┬─ TextPart, ImagePart, VideoPart        what is asked
             └─ ToolCall
    SamplingParams, MediaOptions, Tool, Request       how to answer, how to look (settings.py)
    Completion ─┬─ Choice                             what came back
                ├─ Usage, Timings
                └─ MediaReceipt                       what the model really saw
    Delta                                             a piece of a streamed answer
    Generator                                         anything that answers: engine, server, fake

Settings check themselves when they are made; messages are checked as a whole by processor/messages.py.
Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from qwen3vl.errors import InvalidParams, Qwen3VLError
from qwen3vl.settings import PRESET_NAMES, MediaOptions, SamplingParams, check_number

__all__ = [  # in reading order
    "SCHEMA_VERSION",
    "PRESET_NAMES",
    "Role",
    "FinishReason",
    "PictureSource",
    "VideoSource",
    "MediaOptions",
    "SamplingParams",
    "TextPart",
    "ImagePart",
    "VideoPart",
    "Part",
    "ToolCall",
    "Message",
    "MessageLike",
    "Messages",
    "Tool",
    "ToolChoice",
    "Request",
    "MediaReceipt",
    "Usage",
    "Timings",
    "TokenLogprob",
    "Choice",
    "Completion",
    "Delta",
    "Generator",
]

if TYPE_CHECKING:
    import os

    import numpy as np
    from PIL import Image

SCHEMA_VERSION = 1  # of receipts and of every JSON document the command line prints

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "abort", "error"]
PictureSource: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray"
"""A path, an http(s)/file/data URL, encoded bytes, a PIL picture, or uint8 RGB pixels of shape (H, W, 3)."""
VideoSource: TypeAlias = "str | os.PathLike[str] | bytes | Sequence[PictureSource]"
"""A path, a URL, encoded bytes, or a sequence of frames (whose times come with the VideoPart)."""


# ---------------------------------------------------------------------------------------- messages


@dataclass(frozen=True, slots=True)
class TextPart:
    """Plain text. Control tokens written in it stay text (see processor/tokenizer.py)."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """One picture, with settings of its own if it needs them."""

    image: PictureSource
    media: MediaOptions | None = None


@dataclass(frozen=True, slots=True)
class VideoPart:
    """One video: a file, or frames.

    Attributes:
        video: the file, or the frames in order.
        media: settings for this video alone.
        frame_rate: for frames: frames per second of the list (the rate at which they were taken).
        frame_times: for frames: the time of each in seconds, instead of a rate.
    """

    video: VideoSource
    media: MediaOptions | None = None
    frame_rate: float | None = None
    frame_times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_number("frame_rate", self.frame_rate, 0, math.inf, open_low=True, open_high=True)
        if self.frame_rate is not None and self.frame_times is not None:
            raise InvalidParams("frame_rate and frame_times exclude each other: give one of them")
        times = self.frame_times
        if times is not None and any(not math.isfinite(t) or t < 0 for t in times):
            raise InvalidParams("frame_times must be finite and not negative")
        if times is not None and any(a >= b for a, b in itertools.pairwise(times)):
            raise InvalidParams("frame_times must increase from frame to frame")


Part: TypeAlias = TextPart | ImagePart | VideoPart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function call that the model made. `arguments` is the parsed object, or the raw text if it
    is not valid JSON."""

    name: str
    arguments: Mapping[str, Any] | str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: system, user, assistant or tool.
        content: the parts in order; pictures and videos stand where the model shall see them.
        reasoning: what a Thinking edition thought before the content (assistant only).
        tool_calls: the calls the assistant made.
        tool_call_id: which call a tool message answers; for the caller's own book-keeping.
    """

    role: Role
    content: tuple[Part, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text parts joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


MessageLike: TypeAlias = "Message | Mapping[str, Any] | str"
"""A Message, the same as a dict in OpenAI's or Qwen's form, or a bare question."""
Messages: TypeAlias = "str | Message | Sequence[MessageLike]"
Tool: TypeAlias = Mapping[str, Any]
"""A function schema in OpenAI's form: {"type": "function", "function": {"name", "description", "parameters"}}."""
ToolChoice: TypeAlias = "Literal['auto', 'none', 'required'] | Mapping[str, Any]"


# --------------------------------------------------------------------------- requests and answers


@dataclass(frozen=True, slots=True)
class Request:
    """One question for `Generator.generate_many`."""

    messages: Messages
    params: SamplingParams | None = None
    media: MediaOptions | None = None
    tools: Sequence[Tool] | None = None
    tool_choice: ToolChoice | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class MediaReceipt:
    """What the model really saw of one picture or video. Sizes are (width, height) in pixels.

    Attributes:
        kind: "image" or "video".
        source: a name for people: the path, the URL, "<bytes>", "<PIL>".
        digest: SHA-256 (hex) naming the patches and grid that went into the vision tower; taken over
            their 8-bit pixels and geometry, so equal digests mean equal patches.
        original_size: the file's own size, before its orientation is applied.
        orientation: EXIF orientation 1-8, or for videos the clockwise rotation in degrees.
        resized_size: what the patches were cut from; with the orientation applied.
        grid_thw: temporal, vertical and horizontal patches.
        num_tokens: visual tokens, without markers and timestamps.
        frame_indices: sampled frames of the file, in order; a repeated last frame shows an odd count.
        frame_times: the time of each sampled frame in seconds.
        timestamps: the times told to the model, one per temporal patch.
        duration: of the video, in seconds.
        cache: which cache served it, if any.
        notes: what a person should know (frames missing at the end, transparency composited, ...).
    """

    kind: Literal["image", "video"]
    source: str
    digest: str
    original_size: tuple[int, int]
    resized_size: tuple[int, int]
    grid_thw: tuple[int, int, int]
    num_tokens: int
    orientation: int = 1
    frame_indices: tuple[int, ...] = ()
    frame_times: tuple[float, ...] = ()
    timestamps: tuple[float, ...] = ()
    duration: float | None = None
    cache: Literal["prefix", "vision"] | None = None
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request; `image_tokens` and `video_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    image_tokens: int = 0
    video_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in seconds: media and prompt, vision tower, prefill, decoding."""

    prepare: float = 0.0
    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0

    @property
    def first_token(self) -> float:
        return self.prepare + self.vision + self.prefill


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one generated token, and of the most likely ones at its place."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer. `text` is without reasoning and tool calls; `raw_text` is all that was generated."""

    text: str
    finish_reason: FinishReason
    index: int = 0
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    stop_reason: str | int | None = None
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    raw_text: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request: `n` choices, the first of which is at hand as attributes.

    A request of `generate_many` that failed carries its `error` and no choice; reading its text
    raises that error.
    """

    choices: tuple[Choice, ...]
    usage: Usage = Usage()
    receipts: tuple[MediaReceipt, ...] = ()
    timings: Timings = Timings()
    model: str = ""
    id: str | None = None
    error: Qwen3VLError | None = None

    @property
    def first(self) -> Choice:
        if self.error is not None:
            raise self.error
        return self.choices[0]

    @property
    def text(self) -> str:
        return self.first.text

    @property
    def reasoning(self) -> str | None:
        return self.first.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return self.first.tool_calls

    @property
    def finish_reason(self) -> FinishReason:
        return self.first.finish_reason

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.first.token_ids

    def as_message(self) -> Message:
        """This answer as the assistant's turn of a conversation that goes on."""
        choice = self.first
        content = (TextPart(choice.text),) if choice.text else ()
        return Message("assistant", content, choice.reasoning, choice.tool_calls)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer; never half a character. The last one carries `completion`."""

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCall | None = None
    index: int = 0
    finish_reason: FinishReason | None = None
    completion: Completion | None = None


@runtime_checkable
class Generator(Protocol):
    """Anything that answers messages: the local engine, a remote server, a scripted fake.

    `params=None` is the generator's default (the local one's is greedy). What a generator cannot
    honour it refuses with UnsupportedOption, before any work.
    """

    def generate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Completion:
        """Answer once. Raises a Qwen3VLError."""
        ...

    def stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Iterator[Delta]:
        """Answer piece by piece; the last Delta carries the Completion."""
        ...

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer many, in the order asked; a failure is that Completion's `error`."""
        ...

    async def agenerate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Completion:
        """`generate` without blocking the event loop."""
        ...

    def astream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> AsyncIterator[Delta]:
        """`stream` without blocking the event loop."""
        ...
