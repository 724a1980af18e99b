"""A handle on a model with random weights in an edition's shapes, for which nothing is downloaded or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.engine.service import Service
from qwen3vl.engine.settings import EngineSettings
from qwen3vl.errors import InvalidParams
from qwen3vl.model.checkpoint import parse_dtype
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import ASSETS
from qwen3vl.model.random_model import random_model
from qwen3vl.processor.processor import Processor
from qwen3vl.vlm import VLM


def random_handle(
    config: ModelConfig,
    name: str,
    *,
    dtype: str = "auto",
    quantize: Literal["int8", "int4"] | None = None,
    settings: EngineSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VLM:
    """A VLM whose weights are drawn when it is first used. `dtype` "auto" is bfloat16, as in the released files.

    Its answers are noise. Raises InvalidParams.
    """
    how = None if quantize is None else Quantization.named(quantize)
    if how is not None and dtype not in ("auto", "float32"):
        raise InvalidParams(f"quantize={quantize!r} leaves no dtype to choose, not {dtype}")
    drawn = torch.bfloat16 if dtype == "auto" else parse_dtype(dtype)

    def draw() -> Qwen3VL:
        return random_model(config, dtype=drawn, quantize=how, progress=progress)

    return VLM(Service(Processor.from_folder(ASSETS), config, draw, name=name, settings=settings))
