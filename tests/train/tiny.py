"""A complete checkpoint that is small in everything, tokenizer included: one token a byte, and the control tokens."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from qwen3vl.config import ModelConfig
from qwen3vl.model.editions import edition
from qwen3vl.model.random_checkpoint import write_random_checkpoint
from qwen3vl.processor.processor import Processor
from qwen3vl.processor.tokenizer import _BYTE_OF_CHAR
from qwen3vl.settings import MediaOptions
from tests import models, oracle

SMALL = MediaOptions(min_pixels=32 * 32, max_pixels=128 * 128)
NUM_BYTES = 256


def control_ids() -> dict[str, int]:
    """The official control tokens, in their order, behind the 256 bytes."""
    config = json.loads((oracle.ASSETS / "tokenizer_config.json").read_text())
    names = [entry["content"] for _, entry in sorted(config["added_tokens_decoder"].items(), key=lambda x: int(x[0]))]
    return {name: NUM_BYTES + i for i, name in enumerate(names)}


def tiny_config(name: str = "4b", **changes: Any) -> ModelConfig:
    """ "4b/4" has four decoder layers and four vision blocks."""
    name, _, layers = name.partition("/")
    depth = {"text_layers": int(layers), "vision_layers": int(layers)} if layers else {}
    config, ids = edition(name, shrink=True, **depth), control_ids()  # type: ignore[arg-type]
    return replace(
        config,
        text=replace(config.text, vocab_size=288),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        **changes,
    )


@cache
def folder(name: str = "4b", thinking: bool = False) -> Path:
    """A shrunken edition in float32 with the byte tokenizer; made once per test session."""
    return write(tiny_config(name), thinking)


def write(config: ModelConfig, thinking: bool = False) -> Path:
    path = Path(tempfile.mkdtemp(dir=models._root()))
    write_random_checkpoint(config, path, dtype=torch.float32, thinking=thinking)
    (path / "vocab.json").write_text(json.dumps(_BYTE_OF_CHAR))
    (path / "merges.txt").write_text("#version: 0.2\n")
    settings = json.loads((path / "tokenizer_config.json").read_text())
    ids = control_ids()
    settings["added_tokens_decoder"] = {
        str(ids[entry["content"]]): entry for entry in settings["added_tokens_decoder"].values()
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    generation = json.loads((path / "generation_config.json").read_text())
    generation |= {"eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]], "pad_token_id": ids["<|endoftext|>"]}
    generation["bos_token_id"] = ids["<|endoftext|>"]
    (path / "generation_config.json").write_text(json.dumps(generation))
    return path


@cache
def processor(name: str = "4b", thinking: bool = False) -> Processor:
    return Processor.from_folder(folder(name, thinking))


def copy(path: Path) -> Path:
    """A copy that a test may alter."""
    target = Path(tempfile.mkdtemp(dir=models._root())) / "copy"
    shutil.copytree(path, target)
    return target


def picture(width: int = 64, height: int = 64, seed: int = 90) -> Image.Image:
    """Coarse noise: no two places look alike."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR)
