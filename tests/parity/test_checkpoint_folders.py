"""Folders go both ways: transformers loads what we save, we load what transformers saves, with the same logits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from qwen3vl.config import ModelConfig
from qwen3vl.model import checkpoint
from qwen3vl.model.checkpoint import load_model, save_model
from tests import models

FOLDERS = [*models.EDITIONS, "tied 30b-a3b"]
YARN = {
    "rope_type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 64,
    "mrope_section": [12, 10, 10],
    "mrope_interleaved": True,
}


def make(name: str) -> Path:
    if name == "tied 30b-a3b":
        return models.write(models.small_config("30b-a3b", tie_word_embeddings=True))
    return models.small_folder(name)


def same_logits(ours: Path, theirs: Path) -> None:
    mine, other = load_model(ours), models.load_theirs(theirs)
    prompt = models.make_prompt(mine.config, 5, ("image", 6, 8), 20, ("video", 2, 4, 4), 4)
    with torch.no_grad():
        reference = other(**models.oracle_inputs([prompt], mine.config)).logits[0]
    assert models.difference(models.prefill(mine, [prompt])[0], reference) <= models.TOLERANCE


@pytest.mark.parametrize("shard_bytes", [2**40, 200_000])
@pytest.mark.parametrize("name", FOLDERS)
def test_they_load_what_we_save(name: str, shard_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", shard_bytes)
    source = make(name)
    save_model(load_model(source), tmp_path)
    shards = list(tmp_path.glob("*.safetensors"))
    assert (len(shards) > 2) == (tmp_path / checkpoint.INDEX_FILE).exists() == (shard_bytes < 2**40)
    same_logits(source, tmp_path)
    same_logits(tmp_path, source)


@pytest.mark.parametrize("max_shard_size", ["10GB", "200KB"])
@pytest.mark.parametrize("name", FOLDERS)
def test_we_load_what_they_save(name: str, max_shard_size: str, tmp_path: Path) -> None:
    source = make(name)
    models.load_theirs(source).save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert "rope_parameters" in json.loads((tmp_path / "config.json").read_text())["text_config"]
    assert ModelConfig.from_folder(tmp_path) == ModelConfig.from_folder(source)
    same_logits(tmp_path, source)


def test_we_load_yarn_that_they_save(tmp_path: Path) -> None:
    source = models.write(models.small_config())
    models.edit_config(source, text_config={"rope_scaling": YARN})
    models.load_theirs(source).save_pretrained(tmp_path)
    assert ModelConfig.from_folder(tmp_path).text.rope == ModelConfig.from_folder(source).text.rope
    same_logits(tmp_path, source)


def test_they_load_yarn_that_we_save(tmp_path: Path) -> None:
    source = models.write(models.small_config())
    models.edit_config(source, text_config={"rope_scaling": YARN})
    save_model(load_model(source), tmp_path)
    same_logits(source, tmp_path)


def test_config_without_a_tie_flag(tmp_path: Path) -> None:
    """transformers takes a head of its own where the top level does not say that it is tied."""
    source = shutil.copytree(models.small_folder("8b"), tmp_path / "8b")
    models.edit_config(source, top={"tie_word_embeddings": ...})
    same_logits(source, source)
