"""Complete checkpoint folders with random weights: what tests and benchmarks run on.

Every tensor's values depend on the seed and its name alone. Scales keep activations near 1 through
any depth, and biases and norm weights are random too, so that no fault can hide behind a zero or a one.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.errors import CheckpointError
from qwen3vl.model.checkpoint import save_tensors
from qwen3vl.model.qwen3vl import Qwen3VL

ASSETS = Path(__file__).parent.parent / "assets" / "qwen3-vl"
_COPIED = (
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_EMBEDDING_STD = 0.05  # at width 96; small against the layers' outputs, or a tied head would repeat its input for ever
_BLOCK = 2**24  # values drawn at a time

Progress = Callable[[int, int], None]


def write_random_checkpoint(
    config: ModelConfig,
    folder: str | Path,
    *,
    seed: int = 0,
    thinking: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    progress: Progress | None = None,
) -> Path:
    """Write a folder that `load_model` and transformers load: config, weights, tokenizer, templates.

    `progress` is told values done and in all. Raises CheckpointError if the folder holds something already.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder}: is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(config, random_tensors(config, seed, dtype, progress), folder)
    for name in _COPIED:
        shutil.copy(ASSETS / name, folder / name)
    template = _template(thinking)
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": template}, indent=2) + "\n", encoding="utf-8"
    )
    _set_template(folder / "tokenizer_config.json", template)
    return folder


def random_tensors(
    config: ModelConfig, seed: int, dtype: torch.dtype, progress: Progress | None = None
) -> Iterator[tuple[str, Tensor]]:
    """(name in Qwen3VL, tensor) one after the other; a tied head is left out."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Qwen3VL(config).state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    total, done = sum(shape.numel() for shape in shapes.values()), 0
    for name, shape in shapes.items():
        yield name, _random(name, shape, seed, dtype)
        done += shape.numel()
        if progress is not None:
            progress(done, total)


def _random(name: str, shape: torch.Size, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode(), seed))  # it takes 32 bits, no more
    mean, std = 0.0, shape[-1] ** -0.5
    if name == "visual.pos_embed.weight":
        std = 0.05
    elif "embed_tokens" in name:
        std = _EMBEDDING_STD * (96 / shape[-1]) ** 0.5
    elif "q_norm" in name or "k_norm" in name:
        mean, std = 1.5, 0.1  # sharper than flat attention, which averages away where a token stands; 2 loses digits
    elif len(shape) == 1:
        mean, std = (1.0 if "norm" in name and name.endswith("weight") else 0.0), 0.1
    tensor = torch.empty(shape, dtype=dtype)
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), _BLOCK):
        block = flat[start : start + _BLOCK]
        block.copy_(torch.empty(block.shape).normal_(mean, std, generator=generator))
    return tensor


def _template(thinking: bool) -> str:
    if thinking:
        return (ASSETS / "chat_template.thinking.jinja").read_text(encoding="utf-8")
    template: str = json.loads((ASSETS / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    return template


def _set_template(path: Path, template: str) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    values["chat_template"] = template
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
