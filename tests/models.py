"""Small random checkpoints, prompts for them, and runs of both libraries on the same folder.

Folders and models are made once per test session. A test that alters a model loads its own with
`load_model(folder(...))`.

Shape names: T tokens, P patches, C values of a patch, R rows of logits, V vocabulary.
"""

from __future__ import annotations

import atexit
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.inputs import VisualSpan
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable, PagedKVCache
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.editions import edition
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.random_checkpoint import write_random_checkpoint
from qwen3vl.model.vision import VisualFeatures
from tests import oracle

torch.set_num_threads(
    1
)  # models this small only make threads wait for each other, five times as long on a busy machine

EDITIONS = ("4b", "8b", "30b-a3b")  # dense and tied; untied with vision heads of 36; mixture of experts
TOLERANCE = 1e-5  # of max|a - b| / max|b| in float32

Part = int | tuple[Literal["image"], int, int] | tuple[Literal["video"], int, int, int]


@cache
def _root() -> Path:
    root = tempfile.TemporaryDirectory(prefix="qwen3vl-tests-", ignore_cleanup_errors=True)
    atexit.register(root.cleanup)
    return Path(root.name)


@cache
def folder(name: str) -> Path:
    """A shrunken edition in float32, with the full vocabulary."""
    return write_random_checkpoint(edition(name, shrink=True), _root() / name, dtype=torch.float32)


@cache
def small_folder(name: str) -> Path:
    """A shrunken edition in float32, with a vocabulary of 1000."""
    return write(small_config(name))


def small_config(name: str = "4b", *, text: Any = None, vision: Any = None, **changes: Any) -> ModelConfig:
    """A shrunken edition with a vocabulary of 1000, and other sizes as asked for."""
    config = edition(name, shrink=True)
    ids = {"image_token_id": 990, "video_token_id": 991, "vision_start_token_id": 992, "vision_end_token_id": 993}
    return replace(
        config,
        text=replace(config.text, **{"vocab_size": 1000, **(text or {})}),
        vision=replace(config.vision, **(vision or {})),
        **{**ids, **changes},
    )


def write(config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A new folder with a random checkpoint."""
    return write_random_checkpoint(config, tempfile.mkdtemp(dir=_root()), seed=seed, dtype=dtype)


def edit_config(path: Path, **changes: dict[str, Any]) -> None:
    """edit_config(path, text_config={"rope_theta": 1.0}) changes that key on disk; ... as a value removes it."""
    values = json.loads((path / "config.json").read_text())
    for section, entries in changes.items():
        part = values if section == "top" else values[section]
        part |= entries
        for key in [key for key, value in entries.items() if value is ...]:
            del part[key]
    (path / "config.json").write_text(json.dumps(values))


@cache
def ours(path: Path) -> Qwen3VL:
    return load_model(path)


@cache
def theirs(path: Path) -> Any:
    """transformers' model of the folder, in float32; it never stops at an end token."""
    return load_theirs(path)


def load_theirs(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    oracle.import_torchvision()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    is_moe = json.loads((path / "config.json").read_text())["model_type"] == "qwen3_vl_moe"
    kind = transformers.Qwen3VLMoeForConditionalGeneration if is_moe else transformers.Qwen3VLForConditionalGeneration
    model = kind.from_pretrained(path, dtype=dtype).eval().requires_grad_(False)
    model.generation_config = transformers.GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    return model


@dataclass(frozen=True)
class Shown:
    """A picture or a video in a prompt."""

    kind: str
    grid_thw: tuple[int, int, int]
    patches_PC: Tensor


@dataclass(frozen=True, eq=False)
class Prompt:
    input_ids_T: Tensor
    shown: tuple[Shown, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids_T)

    @property
    def frames(self) -> list[tuple[int, int]]:
        return [shown.grid_thw[1:] for shown in self.shown for _ in range(shown.grid_thw[0])]

    @property
    def patches_PC(self) -> Tensor:  # noqa: N802
        return torch.cat([shown.patches_PC for shown in self.shown])


def make_prompt(config: ModelConfig, *parts: Part, seed: int = 0) -> Prompt:
    """A number is that many text tokens; ("image", h, w) and ("video", t, h, w) are grids in patches.

    Each frame of a video stands behind a few tokens of its own, as behind a timestamp.
    """
    random = torch.Generator().manual_seed(seed)
    ids: list[int] = []
    shown = []
    text_end = min(config.image_token_id, config.vision_start_token_id) - 20
    for part in parts:
        if isinstance(part, int):
            ids += torch.randint(0, text_end, (part,), generator=random).tolist()
            continue
        grid = (1, *part[1:]) if part[0] == "image" else part[1:]
        placeholder = config.image_token_id if part[0] == "image" else config.video_token_id
        for frame in range(grid[0]):
            timestamp = [] if part[0] == "image" else [7 + frame] * (3 + frame % 2)
            pads = [placeholder] * (grid[1] * grid[2] // config.vision.spatial_merge_size**2)
            ids += [*timestamp, config.vision_start_token_id, *pads, config.vision_end_token_id]
        patches = torch.randn(grid[0] * grid[1] * grid[2], config.vision.patch_values, generator=random)
        shown.append(Shown(part[0], grid, patches.clamp(-1, 1)))
    return Prompt(torch.tensor(ids), tuple(shown))


def spans_of(prompt: Prompt, config: ModelConfig) -> list[VisualSpan]:
    """Where the frames' placeholders are, found by counting along the ids."""
    frames = [(v, f, s.grid_thw[1:]) for v, s in enumerate(prompt.shown) for f in range(s.grid_thw[0])]
    ids, spans, i = prompt.input_ids_T.tolist(), [], 0
    while i < len(ids):
        if ids[i] not in (config.image_token_id, config.video_token_id):
            i += 1
            continue
        visual, frame, (height, width) = frames[len(spans)]
        spans.append(VisualSpan(i, (height, width), visual, frame))
        i += height * width // config.vision.spatial_merge_size**2
    assert len(spans) == len(frames), (len(spans), len(frames))
    return spans


def positions_of(prompt: Prompt, config: ModelConfig) -> tuple[Tensor, int]:
    """-> positions_3T, position of the next token."""
    positions, following = mrope_positions(len(prompt), spans_of(prompt, config), config.vision.spatial_merge_size)
    return torch.from_numpy(positions), following


def oracle_inputs(prompts: Sequence[Prompt], config: ModelConfig) -> dict[str, Tensor]:
    """What transformers' model takes for the prompts as one batch, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt.input_ids_T
        mask[row, longest - len(prompt) :] = 1
    kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
    inputs = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds}
    for kind, patches, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        shown = [s for prompt in prompts for s in prompt.shown if s.kind == kind]
        if shown:
            inputs[patches] = torch.cat([s.patches_PC for s in shown])
            inputs[grid] = torch.tensor([s.grid_thw for s in shown])
    return inputs


def encode(model: Qwen3VL, prompts: Sequence[Prompt]) -> VisualFeatures | None:
    with_visuals = [prompt for prompt in prompts if prompt.shown]
    if not with_visuals:
        return None
    patches = torch.cat([prompt.patches_PC for prompt in with_visuals])
    return model.encode_visuals(patches, [frame for prompt in with_visuals for frame in prompt.frames])


@dataclass
class Cached:
    """Sequences in one cache, each with room for `room` tokens; `lengths` of them are there."""

    cache: PagedKVCache
    tables: list[BlockTable]
    lengths: list[int]

    @classmethod
    def of(cls, model: Qwen3VL, count: int, room: int, block_size: int = 16) -> Cached:
        """The blocks of the sequences lie between each other's, so that none is one run."""
        blocks = -(-room // block_size)
        tables = [BlockTable(block_size, range(i, count * blocks, count)) for i in range(count)]
        return cls(model.new_cache(count * blocks, block_size), tables, [0] * count)

    def next(self, lengths: Sequence[int]) -> ForwardContext:
        """For a pass that adds so many tokens to each sequence."""
        context = ForwardContext.paged(self.cache, zip(self.tables, self.lengths, lengths, strict=True))
        self.lengths = [old + new for old, new in zip(self.lengths, lengths, strict=True)]
        return context


@torch.no_grad()
def prefill(model: Qwen3VL, prompts: Sequence[Prompt], cached: Cached | None = None) -> list[Tensor]:
    """All logits of each prompt, computed as one packed batch."""
    lengths = [len(prompt) for prompt in prompts]
    ids = torch.cat([prompt.input_ids_T for prompt in prompts])
    positions = torch.cat([positions_of(prompt, model.config)[0] for prompt in prompts], dim=1)
    context = cached.next(lengths) if cached is not None else ForwardContext.pack(lengths)
    return list(model(ids, positions, context, encode(model, prompts)).split(lengths))


@torch.no_grad()
def prefill_in_chunks(model: Qwen3VL, prompt: Prompt, cached: Cached, sizes: Sequence[int]) -> Tensor:
    """All logits of one prompt, computed a few tokens at a time; the last size is repeated to the end."""
    config, features = model.config, encode(model, [prompt])
    positions = positions_of(prompt, config)[0]
    start, used, logits = 0, 0, []
    left = list(sizes)
    while start < len(prompt):
        size = left.pop(0) if len(left) > 1 else left[0]
        part = slice(start, min(start + size, len(prompt)))
        ids = prompt.input_ids_T[part]
        count = int(((ids == config.image_token_id) | (ids == config.video_token_id)).sum())
        own = features.slice(used, used + count) if features is not None and count else None
        logits.append(model(ids, positions[:, part], cached.next([len(ids)]), own))
        start, used = part.stop, used + count
    return torch.cat(logits)


@torch.no_grad()
def greedy(model: Qwen3VL, prompts: Sequence[Prompt], num_tokens: int) -> list[list[int]]:
    """The most likely continuation of each prompt, prefilled and decoded as packed batches."""
    cached, answers = Cached.of(model, len(prompts), max(map(len, prompts)) + num_tokens), []
    last = torch.stack([logits[-1] for logits in prefill(model, prompts, cached)])
    following = torch.tensor([positions_of(prompt, model.config)[1] for prompt in prompts])
    for step in range(num_tokens):
        answers.append(last.argmax(-1))
        if step + 1 < num_tokens:
            last = model(answers[-1], (following + step).expand(3, -1), cached.next([1] * len(prompts)))
    return torch.stack(answers, dim=1).tolist()


@torch.no_grad()
def their_greedy(model: Any, prompts: Sequence[Prompt], config: ModelConfig, num_tokens: int) -> list[list[int]]:
    inputs = oracle_inputs(prompts, config)
    out = model.generate(**inputs, max_new_tokens=num_tokens, do_sample=False)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


def difference(mine: Tensor, reference: Tensor) -> float:
    """max|a - b| / max|b|."""
    assert mine.shape == reference.shape, (mine.shape, reference.shape)
    return float((mine.double() - reference.double()).abs().max() / reference.double().abs().max())
