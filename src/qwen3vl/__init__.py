"""Qwen3-VL as one package. Importing it does no work: every public name is loaded when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {  # public name -> the module it lives in
    "load": "qwen3vl.vlm",
    "connect": "qwen3vl.remote",
    "quantize": "qwen3vl.quantized",
    "Qwen3VLForConditionalGeneration": "qwen3vl.hf",
    "Qwen3VLMoeForConditionalGeneration": "qwen3vl.hf",
    "AutoModelForImageTextToText": "qwen3vl.hf",
    "AutoProcessor": "qwen3vl.hf",
    "Message": "qwen3vl.types",
    "TextPart": "qwen3vl.types",
    "ImagePart": "qwen3vl.types",
    "VideoPart": "qwen3vl.types",
    "SamplingParams": "qwen3vl.types",
    "MediaOptions": "qwen3vl.types",
    "Completion": "qwen3vl.types",
    "Delta": "qwen3vl.types",
    "Request": "qwen3vl.types",
    "Generator": "qwen3vl.types",
    "MediaPolicy": "qwen3vl.processor.fetch",
    "Qwen3VLError": "qwen3vl.errors",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qwen3vl' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
