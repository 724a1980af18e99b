"""From messages to what the model runs on.

messages --as_messages--> Message --ChatTemplate.render--> Prompt
   pictures, videos --prepare_picture, prepare_video--> Visual
Prompt + Visuals --expand--> ModelInputs(ids, visuals, spans)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from qwen3vl.errors import CheckpointNotFound
from qwen3vl.inputs import ModelInputs, Visual
from qwen3vl.processor.chat import ChatTemplate, Prompt
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.footprints import picture_footprint, video_footprint
from qwen3vl.processor.images import Manner, prepare_picture
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.placeholders import Footprint, VideoMarkers, expand
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.tokenizer import Tokenizer
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, Message, Messages, Tool, VideoPart

_THREADS = 2  # decoding and resizing leave Python's lock; more would only hold more pictures at once


class Processor:
    """The front end of one checkpoint."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        picture_settings: VisionSettings,
        video_settings: VisionSettings,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.picture_settings = picture_settings
        self.video_settings = video_settings
        self._control_tokens = template.control_tokens(tokenizer)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Processor:
        """Read the tokenizer, chat template and processor files of a checkpoint.

        Raises CheckpointNotFound or ConfigError, naming the file.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointNotFound(f"{folder}: no such folder")
        tokenizer = Tokenizer.from_folder(folder)
        return cls(
            tokenizer,
            ChatTemplate.from_folder(folder, tokenizer.named_tokens),
            *_read_settings(folder),
        )

    def __call__(
        self,
        messages: Messages,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        add_vision_id: bool = False,
        sanitize_control_tokens: bool = True,
        policy: MediaPolicy | None = None,
        manner: Manner = "qwen3vl",
    ) -> ModelInputs:
        """One prompt, ready for the model.

        Args:
            media: settings for all pictures and videos; a part's own override them.
            add_vision_id: number the media: "Picture 1: ", "Video 1: ".
            sanitize_control_tokens: control tokens in the caller's text are text; False: they act, as
                in transformers by default.
            policy: where media may come from (default: MediaPolicy.library()).
            manner: how pictures become RGB, see `load_picture`.

        Raises:
            InvalidMessage, InvalidParams, MediaError.
        """
        conversation = as_messages(messages)
        prompt = self.render(
            conversation,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            add_vision_id=add_vision_id,
            sanitize_control_tokens=sanitize_control_tokens,
        )
        visuals = self.prepare_media(conversation, media=media, policy=policy, manner=manner)
        markers = [_markers(part, media or MediaOptions()) for part in media_parts(conversation)]
        return self.assemble(prompt, visuals, markers)

    def prepare_media(
        self,
        messages: Sequence[Message],
        *,
        media: MediaOptions | None = None,
        policy: MediaPolicy | None = None,
        manner: Manner = "qwen3vl",
    ) -> list[Visual]:
        """The pictures and videos of a conversation, in order. Raises InvalidMessage, InvalidParams, MediaError."""
        media, policy = media or MediaOptions(), policy or MediaPolicy.library()
        prepare = partial(self._prepare, media=media, policy=policy, manner=manner)
        return _in_threads(prepare, media_parts(messages))

    def footprints(
        self, messages: Sequence[Message], *, media: MediaOptions | None = None, policy: MediaPolicy | None = None
    ) -> list[Footprint]:
        """What the pictures and videos of a conversation take in the prompt, from their headers."""
        media, policy = media or MediaOptions(), policy or MediaPolicy.library()
        return [self._footprint(part, media, policy) for part in media_parts(messages)]

    def count_tokens(
        self,
        messages: Messages,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        add_vision_id: bool = False,
        sanitize_control_tokens: bool = True,
        policy: MediaPolicy | None = None,
    ) -> int:
        """Length of the prompt that the same call would make; no picture or frame is decoded for it."""
        conversation = as_messages(messages)
        prompt = self.render(
            conversation,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            add_vision_id=add_vision_id,
            sanitize_control_tokens=sanitize_control_tokens,
        )
        footprints = self.footprints(conversation, media=media, policy=policy)
        return len(expand(prompt, footprints, self.tokenizer, self.picture_settings.merge_size)[0])

    def render(
        self,
        messages: Messages,
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        add_vision_id: bool = False,
        sanitize_control_tokens: bool = True,
    ) -> Prompt:
        """The prompt's text, with one placeholder for each picture and video (see ChatTemplate.render)."""
        return self.template.render(
            as_messages(messages),
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            add_vision_id=add_vision_id,
            control_tokens=self._control_tokens if sanitize_control_tokens else None,
        )

    def assemble(
        self, prompt: Prompt, visuals: Sequence[Visual], markers: Sequence[VideoMarkers] | None = None
    ) -> ModelInputs:
        """A rendered prompt and its prepared pictures and videos, in the prompt's order, as model inputs.

        Raises InvalidMessage if they are not as many as the prompt has placeholders for.
        """
        default: VideoMarkers = "release"
        styles = markers if markers is not None else [default] * len(visuals)
        footprints = [Footprint.of(visual, style) for visual, style in zip(visuals, styles, strict=True)]
        ids_T, spans = expand(prompt, footprints, self.tokenizer, self.picture_settings.merge_size)
        return ModelInputs(ids_T, tuple(visuals), spans)

    def _prepare(self, part: ImagePart | VideoPart, media: MediaOptions, policy: MediaPolicy, manner: Manner) -> Visual:
        if isinstance(part, ImagePart):
            return prepare_picture(part, self.picture_settings, media, policy, manner=manner)
        from qwen3vl.processor.video import prepare_video

        return prepare_video(part, self.video_settings, media, policy)

    def _footprint(self, part: ImagePart | VideoPart, media: MediaOptions, policy: MediaPolicy) -> Footprint:
        if isinstance(part, ImagePart):
            return picture_footprint(part, self.picture_settings, media, policy)
        return video_footprint(part, self.video_settings, media, policy)


def _read_settings(folder: Path) -> tuple[VisionSettings, VisionSettings]:
    """For pictures and for videos: from the official two files, or from the one that transformers 5 saves."""
    pictures, saved = folder / "preprocessor_config.json", folder / "processor_config.json"
    if saved.is_file() and not pictures.is_file():
        return VisionSettings.from_file(saved, "image_processor"), VisionSettings.from_file(saved, "video_processor")
    videos = folder / "video_preprocessor_config.json"
    return VisionSettings.from_file(pictures), VisionSettings.from_file(videos)


def media_parts(messages: Sequence[Message]) -> list[ImagePart | VideoPart]:
    """All pictures and videos of a conversation, in order."""
    return [part for message in messages for part in message.content if isinstance(part, (ImagePart, VideoPart))]


def _markers(part: ImagePart | VideoPart, media: MediaOptions) -> VideoMarkers:
    return media.merged_with(part.media).video_markers


def _in_threads(prepare: partial[Visual], parts: Sequence[ImagePart | VideoPart]) -> list[Visual]:
    """In order; the error of the first part that fails is raised, and what has not begun is not begun."""
    if len(parts) < 2:
        return [prepare(part) for part in parts]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(prepare, parts))
