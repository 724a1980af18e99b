"""A conversation with a model: its turns, how a question is asked, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3vl.cli.media import MediaPart
from qwen3vl.cli.output import Screen
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import ContextTooLong, InvalidMessage, InvalidRequest
from qwen3vl.settings import MediaOptions, SamplingParams
from qwen3vl.types import (
    SCHEMA_VERSION,
    Completion,
    Delta,
    ImagePart,
    Message,
    Part,
    PictureSource,
    TextPart,
    VideoSource,
)

if TYPE_CHECKING:
    from qwen3vl.engine.streams import Stream
    from qwen3vl.vlm import VLM


@dataclass(frozen=True, slots=True)
class Settings:
    """How to answer and how to look. `fixed_length`: the bound on the answer was asked for, not a default."""

    params: SamplingParams
    media: MediaOptions
    fixed_length: bool


class Conversation:
    """The turns so far; a question that fails leaves them as they were.

    Attributes:
        system: the system prompt, if any.
        turns: user and assistant in alternation.
        stopped: indices of answers among `turns` that were broken off.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.turns: list[Message] = []
        self.stopped: list[int] = []

    @property
    def messages(self) -> list[Message]:
        system = [Message("system", (TextPart(self.system),))] if self.system else []
        return [*system, *self.turns]

    def ask(
        self,
        model: VLM,
        question: str,
        media: Sequence[MediaPart],
        settings: Settings,
        screen: Screen,
        waiting: Waiting,
    ) -> Completion:
        """Ask, and show the answer as it comes.

        Ctrl-C (KeyboardInterrupt goes on to the caller) keeps what was written as the answer; if nothing was,
        the question is not kept either.
        """
        user = Message("user", (*media, TextPart(question)))
        said: list[Delta] = []
        try:
            with waiting, closing(self._stream(model, user, settings, waiting)) as deltas:
                for delta in deltas:
                    said.append(delta)
                    if screen.shows(delta):
                        waiting.close()
                    elif delta.reasoning:
                        waiting.stage("Thinking")
                    screen.show(delta)
        except KeyboardInterrupt:
            self._keep_part(user, said)
            raise
        finally:
            screen.end()
        completion = said[-1].completion
        assert completion is not None
        self.turns += [user, completion.as_message()]
        return completion

    def clear(self) -> None:
        """Forget the turns; the system prompt stays."""
        self.turns.clear()
        self.stopped.clear()

    def save(self, path: Path, model: str) -> None:
        """Write the conversation as JSON, its messages in the form of the model card. Raises OSError."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "model": model,
            "messages": [_to_dict(message) for message in self.messages],
            "stopped": self.stopped,
        }
        path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """What `save` wrote, or a JSON document with `messages`. Raises InvalidRequest."""
        from qwen3vl.processor.messages import as_messages

        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            messages = as_messages(document["messages"])
            stopped = [int(index) for index in document.get("stopped", [])]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path}: cannot be read ({error})") from error
        except InvalidMessage as error:
            raise InvalidMessage(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidRequest(f"{path}: is not a saved conversation ({error!r})") from error
        for index, message in enumerate(messages):
            if not _can_be_saved(message):
                raise InvalidMessage(f"{path}: message {index}: holds tool calls, bytes, frames or settings of a part")
        first = messages[:1] if messages and messages[0].role == "system" else ()
        conversation = cls(first[0].text if first else None)
        conversation.turns = list(messages[len(first) :])
        conversation.stopped = stopped
        return conversation

    def _stream(self, model: VLM, user: Message, settings: Settings, waiting: Waiting) -> Stream:
        params, messages = settings.params, [*self.messages, user]

        def begin(params: SamplingParams) -> Stream:
            return model.stream(messages, params, media=settings.media, progress=waiting.stage)

        try:
            return begin(params)
        except ContextTooLong:
            if settings.fixed_length:
                raise
            return begin(replace(params, max_tokens=None))  # as many as there is room for: fewer than the default

    def _keep_part(self, user: Message, said: Sequence[Delta]) -> None:
        text = "".join(delta.text for delta in said)
        reasoning = "".join(delta.reasoning for delta in said)
        if text or reasoning:
            self.stopped.append(len(self.turns) + 1)
            content = (TextPart(text),) if text else ()
            self.turns += [user, Message("assistant", content, reasoning or None)]


def _can_be_saved(message: Message) -> bool:
    """Whether `_to_dict` keeps all of it."""
    media = [part for part in message.content if not isinstance(part, TextPart)]
    plain = all(isinstance(source := _source(part), str) and part == type(part)(source) for part in media)
    return plain and not message.tool_calls and message.role != "tool"


def _source(part: MediaPart) -> PictureSource | VideoSource:
    return part.image if isinstance(part, ImagePart) else part.video


def _to_dict(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {"role": message.role, "content": [_part_to_dict(part) for part in message.content]}
    if message.reasoning is not None:
        values["reasoning_content"] = message.reasoning
    return values


def _part_to_dict(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind, source = "image" if isinstance(part, ImagePart) else "video", _source(part)
    assert isinstance(source, str), source
    # absolute, so that the file can be read from another folder
    return {"type": kind, kind: os.path.abspath(source) if os.path.exists(source) else source}
