"""transformers as the oracle: its processor and models, importable here and nowhere in the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tests import torchvision_import

ASSETS = Path(__file__).parent.parent / "src/qwen3vl/assets/qwen3-vl"


def import_torchvision() -> None:
    """Import torchvision, also where its compiled operators do not load (see torchvision_import.py)."""
    torchvision_import.install()
    import torchvision  # noqa: F401


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
