"""The handle that people hold: `model = qwen3vl.load(...)`, `model.chat("What is this?", images=["a.jpg"])`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.conversation import Progress
from qwen3vl.engine.single import SingleEngine
from qwen3vl.errors import CheckpointNotFound, Qwen3VLError, UnsupportedOption
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.hub import Hub, locate
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.processor import Processor
from qwen3vl.settings import MediaOptions, SamplingParams, check_integer
from qwen3vl.turns import chat_params, chat_turn, sampling_params, user_turn
from qwen3vl.types import (
    Completion,
    Delta,
    Messages,
    PictureSource,
    Request,
    Tool,
    ToolChoice,
    VideoSource,
)

__all__ = ["VLM", "load", "sampling_params", "user_turn"]

LoadProgress = Callable[[int, int], None]  # bytes of weights read, and in all


def load(
    model: str | os.PathLike[str],
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | dict[str, str] | None = None,
    quantize: Literal["int8", "int4"] | None = None,
    max_context: int | None = None,
    deterministic: bool = False,
    attention: str | None = None,
    source: Hub = "huggingface",
    revision: str | None = None,
    policy: MediaPolicy | None = None,
    lazy: bool = False,
    progress: LoadProgress | None = None,
) -> VLM:
    """Load a checkpoint from a folder or a hub.

    Args:
        model: a folder, or a repository name such as "Qwen/Qwen3-VL-4B-Instruct".
        device: "auto" (cuda, else cpu) or a torch device; `device_map` spreads over several instead.
        dtype: "auto" is the checkpoint's own; or float32, bfloat16, float16.
        max_context: bound on prompt + answer in tokens; stating it lifts the bound on positions.
        attention: "sdpa" (default) or "flash_attention_2".
        source: the hub that names are looked up on.
        policy: where media may come from (default: local files and https).
        lazy: read the weights when the first request has been checked, not now.
        progress: told bytes of weights read and in all.

    Raises:
        CheckpointNotFound, ConfigError, WeightsError, UnsupportedOption.
    """
    if quantize is not None:
        raise UnsupportedOption(f"quantize={quantize!r}: quantised weights are not supported yet")
    if deterministic:
        raise UnsupportedOption("deterministic=True: not supported yet")
    if os.fspath(model) == "small" and not Path("small").is_dir():
        raise CheckpointNotFound("small: the trained small model is not part of this version")
    check_integer("max_context", max_context, minimum=1)
    folder = locate(model, hub=source, revision=revision)
    config = ModelConfig.from_folder(folder)
    target = None if device_map is not None else device

    def load_weights() -> Qwen3VL:
        return load_model(
            folder, dtype=dtype, device=target, device_map=device_map, attention=attention, progress=progress
        )

    engine = SingleEngine(
        Processor.from_folder(folder),
        config,
        load_weights,
        name=os.fspath(model),
        policy=policy,
        max_context=max_context,
    )
    handle = VLM(engine)
    if not lazy:
        _ = engine.runner
    return handle


class VLM:
    """A loaded model; a `Generator`. Requests that run at the same time take turns.

    Attributes:
        processor: the front end: `model.processor(messages)` shows what the model gets.
        config: the checkpoint's architecture.
    """

    def __init__(self, engine: SingleEngine) -> None:
        self._engine = engine
        self.processor = engine.processor
        self.config = engine.config
        self.name = engine.name

    @property
    def model(self) -> Qwen3VL:
        """The network itself."""
        return self._engine.runner.model

    def chat(
        self,
        question: str,
        images: Sequence[PictureSource] = (),
        videos: Sequence[VideoSource] = (),
        *,
        system: str | None = None,
        history: Messages = (),
        params: SamplingParams | None = None,
        media: MediaOptions | None = None,
        **settings: Any,
    ) -> Completion:
        """Ask one question about pictures and videos.

        `history` are earlier turns, the last answer included (`completion.as_message()`); what of them
        the cache holds is not read again. `settings` are fields of SamplingParams: max_tokens=100.
        """
        params = chat_params(params, settings)
        return self.generate(chat_turn(question, images, videos, system, history), params, media=media)

    def generate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
        progress: Progress | None = None,
    ) -> Completion:
        """Answer once. `progress` is told ("vision" | "prefill", done, of). Raises a Qwen3VLError."""
        *_, last = self.stream(messages, params, media=media, tools=tools, tool_choice=tool_choice, progress=progress)
        assert last.completion is not None
        return last.completion

    def stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Delta]:
        """Answer piece by piece, never half a character; the last Delta carries the Completion.

        Bad requests raise here, before the first piece is asked for and before any model work.
        """
        return self._engine.stream(
            messages, params, media=media, tools=tools, tool_choice=tool_choice, progress=progress
        )

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer in order; a failure is that Completion's `error`."""
        for request in requests:
            try:
                completion = self.generate(
                    request.messages,
                    request.params,
                    media=request.media,
                    tools=request.tools,
                    tool_choice=request.tool_choice,
                )
                yield replace(completion, id=request.id)
            except Qwen3VLError as error:
                yield Completion((), model=self.name, id=request.id, error=error)

    async def agenerate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Completion:
        """`generate` in a thread."""
        return await asyncio.to_thread(
            self.generate, messages, params, media=media, tools=tools, tool_choice=tool_choice
        )

    async def astream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> AsyncIterator[Delta]:
        """`stream`, each piece computed in a thread."""
        deltas = await asyncio.to_thread(
            self.stream, messages, params, media=media, tools=tools, tool_choice=tool_choice
        )
        while (delta := await asyncio.to_thread(next, deltas, None)) is not None:
            yield delta

    def count_tokens(
        self, messages: Messages, *, media: MediaOptions | None = None, tools: Sequence[Tool] | None = None
    ) -> int:
        """Tokens of the prompt that these messages make, from the headers of their media alone."""
        return self.processor.count_tokens(messages, media=media, tools=tools, policy=self._engine.policy)

    def forget(self) -> None:
        """Free the memory that holds the last conversation."""
        self._engine.forget()
