"""The handle that people hold: `model = qwen3vl.load(...)`, `model.chat("What is this?", images=["a.jpg"])`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine import streams
from qwen3vl.engine.memory import parse_bytes
from qwen3vl.engine.metrics import Snapshot
from qwen3vl.engine.service import Service
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.engine.streams import Progress, Stream
from qwen3vl.errors import InvalidParams
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.hub import Hub, locate
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.processor.fetch import MediaPolicy
from qwen3vl.processor.processor import Processor
from qwen3vl.settings import KvDtype, MediaOptions, SamplingParams
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
    kv_memory: int | str | None = None,
    kv_dtype: KvDtype | None = None,
    vision_cache: int | str = "1GiB",
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
        model: a folder, a repository name such as "Qwen/Qwen3-VL-4B-Instruct", or "small": the trained small model
            that comes with the package.
        device: "auto" (cuda, else cpu) or a torch device; `device_map` spreads over several instead.
        dtype: "auto" is the checkpoint's own; or float32, bfloat16, float16.
        quantize: "int8" or "int4" weights, packed while they are read: on the CPU, a half or a third of bfloat16's
            memory, and faster. Folders written by `qwen3vl quantize` need no option.
        max_context: bound on prompt + answer in tokens; stating it lifts the bound on positions.
        kv_memory: bytes, or "4GiB", for the keys and values of all requests; None: a share of what is free when
            the weights are loaded.
        kv_dtype: of them. "int8" holds about twice the tokens of "bfloat16", at a small error; "model" keeps what the
            model computes in. None: "bfloat16" for int4 and int8 weights, else "model".
        vision_cache: bytes, or "1GiB", for what the vision tower made of earlier pictures and videos.
        deterministic: a request's tokens and log-probabilities do not depend on what else is running, or on what
            the caches hold, to the last bit; slower.
        attention: "sdpa" (torch's own) or "flash_attention_2"; default: this package's kernels on CPUs, else "sdpa".
        source: the hub that names are looked up on.
        policy: where media may come from (default: local files and https).
        lazy: read the weights when the first request has been checked, not now.
        progress: told bytes of weights read and in all.

    Raises:
        CheckpointNotFound, ConfigError, WeightsError, UnsupportedOption.
    """
    quantization = None if quantize is None else Quantization.named(quantize)
    settings = EngineSettings(
        kv_memory=None if kv_memory is None else _parse_bytes("kv_memory", kv_memory),
        kv_dtype=kv_dtype,
        vision_cache_bytes=_parse_bytes("vision_cache", vision_cache),
        max_context=max_context,
        deterministic=deterministic,
    )
    folder = locate(model, hub=source, revision=revision)
    config = ModelConfig.from_folder(folder)
    target = None if device_map is not None else device

    def load_weights() -> Qwen3VL:
        return load_model(
            folder,
            dtype=dtype,
            device=target,
            device_map=device_map,
            attention=attention,
            quantize=quantization,
            progress=progress,
        )

    service = Service(
        Processor.from_folder(folder),
        config,
        load_weights,
        name=os.fspath(model),
        policy=policy,
        settings=settings,
    )
    handle = VLM(service)
    if not lazy:
        service.load()
    return handle


def _parse_bytes(name: str, size: int | str) -> int:
    try:
        return parse_bytes(size)
    except InvalidParams as error:
        raise InvalidParams(f"{name}: {error}") from error


class VLM:
    """A loaded model; a `Generator`. Requests that run at the same time share its passes.

    Attributes:
        processor: the front end: `model.processor(messages)` shows what the model gets.
        config: the checkpoint's architecture.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.processor = service.processor
        self.config = service.config
        self.name = service.name

    @property
    def model(self) -> Qwen3VL:
        """The network itself."""
        return self._service.model

    @property
    def picture_bounds(self) -> tuple[int, int]:
        """Least and greatest area in pixels at which the checkpoint's own settings show it a picture."""
        settings = self.processor.picture_settings
        return settings.min_pixels, settings.max_pixels

    @property
    def metrics(self) -> Snapshot:
        """How busy the engine is and how long answers take, at this moment."""
        return self._service.metrics.snapshot()

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
        request = Request(messages, params, media, tools, tool_choice)
        with Stream(self._service, request, progress, streamed=False) as stream:
            stream.begin()
            return stream.result()

    def stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
        progress: Progress | None = None,
    ) -> Stream:
        """Answer piece by piece, never half a character; the last Delta carries the Completion.

        Bad requests raise here, before the first piece is asked for and before any model work. Closing the
        stream, dropping it, or Ctrl-C while it waits ends this request and no other. While it grows, the
        reading of other requests leaves it half of the time; `generate` waits for the end and has no such claim.
        """
        stream = Stream(self._service, Request(messages, params, media, tools, tool_choice), progress)
        stream.begin()
        return stream

    def generate_many(self, requests: Iterable[Request], *, progress: Progress | None = None) -> Iterator[Completion]:
        """Answer in order, many at a time; a failure is that Completion's `error`.

        Requests are taken a little ahead of their answers. `progress` is told ("answers", done, of), where `of`
        is 0 if `requests` has no length.
        """
        return streams.generate_many(self._service, requests, progress)

    async def agenerate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Completion:
        """`generate` without blocking the event loop; cancelling it ends the request."""
        return await streams.agenerate(self._service, Request(messages, params, media, tools, tool_choice))

    def astream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> AsyncIterator[Delta]:
        """`stream` without blocking the event loop; cancelling or closing it ends the request."""
        return streams.astream(self._service, Request(messages, params, media, tools, tool_choice))

    def count_tokens(
        self, messages: Messages, *, media: MediaOptions | None = None, tools: Sequence[Tool] | None = None
    ) -> int:
        """Tokens of the prompt that these messages make, from the headers of their media alone."""
        return self.processor.count_tokens(messages, media=media, tools=tools, policy=self._service.policy)

    def forget(self) -> None:
        """Free what the caches hold of earlier requests; or tell them that the weights have changed."""
        self._service.forget()

    def close(self) -> None:
        """End what is running and let go of the model. The handle cannot be used any more."""
        self._service.close()

    def __enter__(self) -> VLM:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
