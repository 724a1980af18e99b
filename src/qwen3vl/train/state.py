"""Saved states of a run: each a folder that is a complete checkpoint, and that the run can go on from exactly.

    OUT/run.json               what was asked for (run.py)
    OUT/log.jsonl, OUT/tensorboard/
    OUT/checkpoints/step-000300/    config.json, weights, tokenizer and processor files: both libraries load it
                    training/state.pt        float32 weights, AdamW's state, random numbers
                    training/progress.json   steps, conversations, tokens so far
    OUT/model/                 the result

A folder is written under another name and renamed when it is complete, so that a run that is killed while it saves
goes on from the state before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen3vl.errors import CheckpointNotFound, WeightsError
from qwen3vl.model.checkpoint import find_tensors, save_tensors
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.safetensors_file import INDEX_FILE
from qwen3vl.train.distributed import Ranks
from qwen3vl.train.optimizer import Optimizer
from qwen3vl.train.reports import Progress
from qwen3vl.train.sharded_tensors import whole

_STATE, _PROGRESS = Path("training/state.pt"), Path("training/progress.json")
_COPIED = (".json", ".jinja", ".txt")  # processor files, by their endings
_NOT_COPIED = ("config.json", INDEX_FILE, "adapter_config.json")


def save_state(
    out: Path, base: Path, model: Qwen3VL, optimizer: Optimizer, progress: Progress, keep: int, ranks: Ranks
) -> Path:
    """Write a state and remove older ones but the last `keep` (0: keep all). -> its folder.

    Of several processes the first one writes; all must call it, since weights and state are gathered from them.
    """
    folder = checkpoints(out) / f"step-{progress.step:06d}"
    partial = folder.with_suffix(".partial")
    if ranks.is_main:
        shutil.rmtree(partial, ignore_errors=True)
    write_result(partial, base, model, optimizer, ranks)
    state = {**whole(optimizer.state()), "random": ranks.gather(_random_state())}
    if not ranks.is_main:
        return folder
    (partial / _STATE).parent.mkdir()
    torch.save(state, partial / _STATE)
    (partial / _PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    for old in saved_states(out)[:-keep] if keep else []:
        shutil.rmtree(old)
    return folder


def load_state(folder: Path, optimizer: Optimizer, ranks: Ranks) -> Progress:
    """Put a saved state back, whatever number of processes saved it. Raises WeightsError if it is of other weights."""
    state = torch.load(folder / _STATE, map_location=ranks.device, weights_only=True)
    try:
        optimizer.load_state(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder / _STATE}: does not fit this run: {error}") from error
    _set_random_state(state["random"][ranks.rank % len(state["random"])])
    return Progress(**json.loads((folder / _PROGRESS).read_text(encoding="utf-8")))


def checkpoints(out: Path) -> Path:
    return out / "checkpoints"


def saved_states(out: Path) -> list[Path]:
    """All complete states, the oldest first."""
    return sorted(path for path in checkpoints(out).glob("step-*") if path.suffix != ".partial")


def last_state(out: Path) -> Path:
    """Raises CheckpointNotFound."""
    states = saved_states(out)
    if not states:
        raise CheckpointNotFound(f"{out}: holds no saved state to go on from")
    return states[-1]


def write_result(folder: Path, base: Path, model: Qwen3VL, optimizer: Optimizer, ranks: Ranks) -> None:
    """A folder like `base` with the trained weights, in base's dtype; of LoRA, the adapter alone.

    All processes must call it; the first one writes.
    """
    if hasattr(model, "peft_config"):
        from qwen3vl.train.lora import adapter_tensors, save_adapter

        factors = whole(adapter_tensors(model))
        if ranks.is_main:
            save_adapter(model, folder, factors)
        return
    tensors = _result_tensors(model, optimizer, stored_dtype(base))
    if not ranks.is_main:
        for _ in tensors:  # gathered with the others
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(model.config, tensors, folder)
    copy_processor_files(base, folder)


def copy_processor_files(base: Path, folder: Path) -> None:
    """Tokenizer, chat template, picture, video and generation settings."""
    for path in base.iterdir():
        if path.is_file() and path.suffix in _COPIED and path.name not in _NOT_COPIED:
            shutil.copy(path, folder / path.name)


def stored_dtype(base: Path) -> torch.dtype:
    """Of most of a checkpoint's values; float32 for a folder without weights (trained from scratch)."""
    try:
        tensors = find_tensors(base)
    except CheckpointNotFound:
        return torch.float32
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.num_bytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def _result_tensors(model: Qwen3VL, optimizer: Optimizer, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    masters = dict(optimizer.named_masters())
    for name, tensor in model.state_dict().items():
        if model.config.tie_word_embeddings and name == "lm_head.weight":
            continue
        yield name, whole(masters.get(name, tensor)).detach().to(dtype)


def _random_state() -> dict[str, Any]:
    """Of torch; nothing else draws random numbers that a step depends on."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([x.cpu() for x in state["cuda"]])
