"""Options of all commands that ask one model for one result: locate, read, parse, ... (see options.py for groups)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from typer import Option

from qwen3vl.cli.options import DEFAULT_MAX_TOKENS, LookOptions, ModelOptions, SamplingOptions
from qwen3vl.errors import InvalidParams
from qwen3vl.settings import PRESET_NAMES, MediaOptions, SamplingParams
from qwen3vl.types import Generator

_SAMPLING = (
    *("preset", "max_tokens", "temperature", "top_p", "top_k", "presence_penalty", "repetition_penalty", "seed"),
    "loop_guard",
)


@dataclass(frozen=True, slots=True)
class TaskOptions(ModelOptions):
    """Which model answers, here or on a server, how, and in which form the result is printed."""

    server: Annotated[
        str | None, Option(metavar="URL", help="An OpenAI-compatible server instead of --model: http://host:8000/v1")
    ] = None
    server_model: Annotated[str | None, Option(help="The server's name for the model; with --server.")] = None
    api_key_env: Annotated[
        str | None, Option(metavar="NAME", help="Environment variable with the server's key [default: OPENAI_API_KEY].")
    ] = None
    preset: Annotated[str, Option(help=f"Settings to start from: {', '.join(PRESET_NAMES)}.")] = "greedy"
    max_tokens: Annotated[int | None, Option(help="Bound on each answer; an answer that is cut says so.")] = None
    temperature: Annotated[float | None, Option(help="0 takes the most likely token each time.")] = None
    top_p: Annotated[float | None, Option(help="Keep the likeliest tokens of this total probability.")] = None
    top_k: Annotated[int | None, Option(help="Keep this many of the likeliest tokens.")] = None
    presence_penalty: Annotated[float | None, Option(help="-2 to 2; for tokens already in the answer.")] = None
    repetition_penalty: Annotated[float | None, Option(help="1 is off; over prompt and answer.")] = None
    seed: Annotated[int | None, Option(help="Same seed, same request, same answer.")] = None
    loop_guard: Annotated[
        str | None, Option(help="When an answer repeats itself without end: stop [default], rewind or off.")
    ] = None
    as_json: Annotated[bool, Option("--json", help="Print one JSON document, with the raw answer in it.")] = False

    def __post_init__(self) -> None:
        ModelOptions.__post_init__(self)  # super() has no class to stand on in a dataclass with slots
        if self.server is None:
            self._refuse("needs --server", "server_model", "api_key_env")
            return
        self._refuse("excludes --server", *(f.name for f in fields(ModelOptions)))
        if self.server_model is None:
            raise InvalidParams("--server needs --server-model: the name under which the server knows the model")

    def _refuse(self, why: str, *names: str) -> None:
        for f in fields(self):
            if f.name in names and getattr(self, f.name) != f.default:
                raise InvalidParams(f"--{f.name.replace('_', '-')} {why}")

    def params(self, max_tokens: int = DEFAULT_MAX_TOKENS) -> SamplingParams:
        """`max_tokens` is the task's own bound, for where neither an option nor the preset gives one."""
        given = SamplingOptions(**{name: getattr(self, name) for name in _SAMPLING})
        preset = SamplingParams.preset(self.preset).max_tokens
        return given.params(max_tokens=self.max_tokens or preset or max_tokens)

    def open(self, progress: Callable[[int, int], None]) -> Generator:
        """The model; `progress` is told bytes of its weights read, and in all."""
        if self.server is None:
            return self.load(progress)
        from qwen3vl.remote import connect

        assert self.server_model is not None
        return connect(self.server, self.server_model, api_key=self._api_key())

    def _api_key(self) -> str | None:
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env)):
            raise InvalidParams(f"--api-key-env: the environment variable {self.api_key_env} is not set")
        return key


@dataclass(frozen=True, slots=True)
class PictureLook:
    """How pictures are looked at."""

    min_pixels: Annotated[int | None, Option(help="Least area of a picture after resizing.")] = None
    max_pixels: Annotated[int | None, Option(help="Greatest area; 1024 pixels are about a token.")] = None

    def media(self) -> MediaOptions | None:
        """None leaves it to the task. Raises InvalidParams."""
        return media_of(self)


def media_of(look: PictureLook | LookOptions) -> MediaOptions | None:
    """None if nothing was asked for: the task's own limits then hold. Raises InvalidParams."""
    options: dict[str, Any] = asdict(look)
    return None if (media := MediaOptions(**options)) == MediaOptions() else media
