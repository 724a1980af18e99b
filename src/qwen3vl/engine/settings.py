"""How the engine divides memory and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from qwen3vl.errors import InvalidParams
from qwen3vl.settings import KvDtype, check_choice, check_integer, check_number


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Checks itself when it is made; raises InvalidParams.

    Attributes:
        block_size: tokens per block of the cache; prefixes are shared in whole blocks.
        max_batched_tokens: tokens per pass: bounds activations, however long a prompt.
        max_sequences: answers that are worked on at the same time; more wait.
        kv_memory: bytes for keys and values; None: what the machine can spare (engine/memory.py).
        kv_dtype: "model": what it computes in; "bfloat16" (models of 16 bits: their own); "int8": a byte per value and
            a scale per token and head; None: "bfloat16" for int4 and int8 weights, else "model".
        vision_cache_bytes: kept outputs of the vision tower, so that no picture is looked at twice.
        prefix_cache: keep the blocks of what was read for later prompts that begin alike.
        reading_share: of the time, while streamed answers grow, that reading prompts and pictures may take:
            with 0.5 their words come about half as fast at worst; with 1 reading always goes first.
        max_context: bound on prompt + answer in tokens; None: the checkpoint's own.
        deterministic: a request's tokens and log-probabilities do not depend on its company (slower).
    """

    block_size: int = 16
    max_batched_tokens: int = 2048
    max_sequences: int = 64
    kv_memory: int | None = None
    kv_dtype: KvDtype | None = None
    vision_cache_bytes: int = 1 << 30
    prefix_cache: bool = True
    reading_share: float = 0.5
    max_context: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("block_size", "max_batched_tokens", "max_sequences"):
            check_integer(name, getattr(self, name), minimum=1, required=True)
        check_integer("vision_cache_bytes", self.vision_cache_bytes, minimum=0, required=True)
        check_integer("kv_memory", self.kv_memory, minimum=1)
        check_integer("max_context", self.max_context, minimum=1)
        check_number("reading_share", self.reading_share, 0, 1, required=True, open_low=True)
        check_choice("kv_dtype", self.kv_dtype or "model", get_args(KvDtype))
        if self.max_sequences > self.max_batched_tokens:
            raise InvalidParams(
                f"max_sequences={self.max_sequences} is above max_batched_tokens={self.max_batched_tokens}: "
                "each answer that grows takes one token of every pass"
            )
