"""transformers as the oracle: its processor and models, importable here and nowhere in the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

ASSETS = Path(__file__).parent.parent / "src/qwen3vl/assets/qwen3-vl"


@cache
def import_torchvision() -> None:
    """Import torchvision without its compiled operators, which have no CPU build for this torch.

    Only the names of its fake kernels are skipped; the resizing that the processors use is torch's own.
    """
    register_fake = torch.library.register_fake

    def skip_torchvision(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            return lambda function: function
        return register_fake(op, *args, **kwargs)

    torch.library.register_fake = skip_torchvision
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register_fake


@cache
def processor(folder: Path = ASSETS) -> Any:
    """transformers' Qwen3VLProcessor for a folder of processor files."""
    import_torchvision()
    from transformers import AutoTokenizer, Qwen3VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    template = folder / "chat_template.json"
    import json

    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=Qwen3VLVideoProcessor.from_pretrained(folder),
        chat_template=json.loads(template.read_text())["chat_template"],
    )
