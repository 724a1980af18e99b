"""What goes into the engine and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qwen3vl.engine.sequence import Prompt
from qwen3vl.errors import Qwen3VLError
from qwen3vl.settings import SamplingParams
from qwen3vl.types import Delta


@dataclass(frozen=True, slots=True)
class Work:
    """A checked request: everything that can be known before the model runs.

    Attributes:
        id: names the request to `Engine.abort` and in every Output; no two at a time are equal.
        max_tokens: bound on each answer: the request's own, or the room left in the context.
        thinking: the prompt ends inside the reasoning.
        read_calls: tool calls are read out of the text.
        prepare_seconds: that media and prompt took, for Timings.
        streamed: somebody reads the words as they come, so they shall not stop while others' prompts are read.
    """

    id: str
    prompt: Prompt
    params: SamplingParams
    max_tokens: int
    thinking: bool = False
    read_calls: bool = True
    prepare_seconds: float = 0.0
    streamed: bool = False


Progress = tuple[Literal["vision", "prefill"], int, int]  # what, done, of


@dataclass(frozen=True, slots=True)
class Output:
    """What one step gave one request.

    Attributes:
        deltas: pieces of the answers, in order; the last piece of a request carries the Completion.
        progress: patches that the vision tower saw, tokens of the prompt that were read; those that no cache had.
        error: the request failed and is over; nothing follows, and there is no Completion.
    """

    request_id: str
    deltas: tuple[Delta, ...] = ()
    progress: tuple[Progress, ...] = ()
    error: Qwen3VLError | None = None

    @property
    def finished(self) -> bool:
        return self.error is not None or any(delta.completion is not None for delta in self.deltas)
