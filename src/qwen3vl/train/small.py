"""A new small model: the true architecture in small sizes, a tokenizer of its own, weights to start learning from.

    make_small(folder, "small")   -> a folder that qwen3vl and transformers load

Parameters, and millions of multiply-adds forward (training costs three times as much; the head only where
something is learnt):

              tower              decoder            parameters   patch   merged token   text token   head
    tiny      4 x 96, mlp 256    4 x 128, mlp 384      2.4 M      0.5        1.6           0.8        0.3
    small     6 x 128, mlp 512   6 x 160, mlp 416      5.2 M      1.4        3.3           1.9        0.3
    medium    6 x 192, mlp 768   5 x 256, mlp 704     10.5 M      3.0        6.8           3.7        0.5
    large     8 x 192, mlp 768   6 x 320, mlp 896     14.7 M      3.9       10.0           6.6        0.7

Patches of 16 pixels, merged 2 x 2, as in every release: a letter of a small font is half a patch wide, so a merged
token must carry up to eight letters. Width of the tower beats depth for that (neighbouring patches are all that a
letter needs), three DeepStack taps hand the decoder four vectors a token instead of one, and mergers cost a
quarter of what blocks cost. The decoder reads letter by letter: the vocabulary is small on purpose (2048), long enough
to say prompts and JSON in few tokens, while all other text is spelled (small_tokenizer.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qwen3vl.config import ModelConfig, RopeConfig, TextConfig, VisionConfig
from qwen3vl.errors import CheckpointError, InvalidParams, Qwen3VLError
from qwen3vl.model.checkpoint import save_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.processor.chat import ChatTemplate
from qwen3vl.processor.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START
from qwen3vl.settings import check_integer
from qwen3vl.train.initial import initialise
from qwen3vl.train.small_tokenizer import OFFICIAL, control_tokens, write_tokenizer

CONTEXT = 8192
MIN_PIXELS = 32 * 32  # of a picture: one merged token; the official 256 x 256 would blow up small crops
MAX_PIXELS = 1024 * 32 * 32
MAX_VIDEO_PIXELS = 2048 * 2 * 32 * 32
TEXTS_PER_TASK = 10
_FEATURE_SCALE = 0.05

Progress = Callable[[str, int, int], None]  # what, done, of


@dataclass(frozen=True, slots=True)
class SmallSize:
    """Sizes of one small edition; heads of the tower are 32 wide, taps are spread over its depth."""

    vocab_size: int
    tower_width: int
    tower_depth: int
    tower_mlp: int
    table_side: int
    width: int
    depth: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    mrope_section: tuple[int, int, int]


SIZES = {
    "tiny": SmallSize(2048, 96, 4, 256, 16, 128, 4, 384, 4, 2, 32, (6, 5, 5)),
    "small": SmallSize(2048, 128, 6, 512, 32, 160, 6, 416, 6, 6, 32, (6, 5, 5)),
    "medium": SmallSize(2048, 192, 6, 768, 32, 256, 5, 704, 4, 2, 64, (12, 10, 10)),
    "large": SmallSize(2048, 192, 8, 768, 32, 320, 6, 896, 4, 2, 64, (12, 10, 10)),
}


def small_config(size: SmallSize, vocab_size: int, first_control_id: int) -> ModelConfig:
    """The config; control tokens stand at `first_control_id` and behind it, in their official order."""
    ids = {entry["content"]: first_control_id + i for i, entry in enumerate(control_tokens())}
    taps = tuple((k + 1) * size.tower_depth // 4 for k in range(3))  # as evenly as in the releases
    text = TextConfig(
        vocab_size=vocab_size,
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.head_dim,
        rms_norm_eps=1e-6,
        max_position_embeddings=CONTEXT,
        rope=RopeConfig(theta=10_000.0, mrope_section=size.mrope_section),  # 5e6 is for contexts 30 times as long
    )
    vision = VisionConfig(
        depth=size.tower_depth,
        hidden_size=size.tower_width,
        intermediate_size=size.tower_mlp,
        num_heads=size.tower_width // 32,
        patch_size=16,
        temporal_patch_size=2,
        spatial_merge_size=2,
        out_hidden_size=size.width,
        num_position_embeddings=size.table_side**2,
        deepstack_visual_indexes=taps,
    )
    return ModelConfig(
        text=text,
        vision=vision,
        tie_word_embeddings=True,
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
    )


def make_small(
    folder: str | Path,
    size: str = "small",
    *,
    vocab_size: int | None = None,
    seed: int = 0,
    texts: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write a new model's folder: config, weights (float32), tokenizer, chat template, picture settings.

    `texts` are what the tokenizer learns from; by default prompts and answers of every synthetic task (train
    side). -> notes for people. Raises CheckpointError if the folder holds something, InvalidParams.
    """
    if size not in SIZES:
        raise InvalidParams(f"size {size!r} is not known: choose from {', '.join(SIZES)}")
    check_integer("vocab_size", vocab_size, minimum=1)
    check_integer("seed", seed, minimum=0)
    folder, sizes, notes = Path(folder), SIZES[size], list[str]()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: is not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    template: str = json.loads((OFFICIAL / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    texts = texts if texts is not None else synthetic_texts(seed, notes, progress)
    number = write_tokenizer(
        texts, folder, vocab_size=vocab_size or sizes.vocab_size, context=CONTEXT, template=template
    )
    config = small_config(sizes, number, number - len(control_tokens()))
    save_model(new_model(config, seed), folder)
    _write_settings(folder, template, number - len(control_tokens()))
    return tuple(notes)


def synthetic_texts(seed: int, notes: list[str], progress: Progress | None = None) -> Iterator[str]:
    """Prompts as the chat template writes them, and answers, of every task.

    A task that cannot be drawn here (no browser, no fonts) is left out and noted: the vocabulary then differs
    from that of a machine that has all of them.
    """
    from qwen3vl.train.synthetic.registry import make_sample, tasks

    template = ChatTemplate.from_folder(OFFICIAL)
    control = re.compile("|".join(re.escape(entry["content"]) for entry in control_tokens()))
    names = list(tasks())
    for done, name in enumerate(names):
        if progress:
            progress("Drawing texts", done, len(names))
        try:
            for index in range(TEXTS_PER_TASK):
                sample = make_sample(name, "train", seed, index)
                yield from filter(None, control.split(template.render(sample.messages, tools=sample.tools).text))
                yield sample.answer
        except Qwen3VLError as error:
            notes.append(f"the task {name} cannot be drawn here, its texts are missing: {error}")


# --------------------------------------------------------------------------------------- weights


def new_model(config: ModelConfig, seed: int) -> Qwen3VL:
    """Float32 weights to begin with: those of initial.py, but with places told from the start, and with what the
    tower gives no larger than the embeddings that it stands among."""
    model = Qwen3VL(config)
    initialise(model, seed)
    with torch.no_grad():
        table = model.visual.pos_embed.weight
        table.copy_(position_table(math.isqrt(table.shape[0]), table.shape[1]))
        for merger in (model.visual.merger, *model.visual.deepstack_merger_list):
            merger.linear_fc2.weight.mul_(_FEATURE_SCALE)  # type: ignore[operator,union-attr]
    return model


def position_table(side: int, width: int) -> Tensor:
    """The tower's table of positions as sines and cosines of row and column, a quarter of the values each.

    Neighbours begin alike and places far apart do not, whatever size the table is stretched to: so coordinates can
    be read off before anything is learnt. The longest wave is twice the table, the shortest four entries.
    """
    assert width % 4 == 0, width
    waves = 2 * side * torch.linspace(0, 1, width // 4).neg().exp2().pow(math.log2(max(side / 2, 1)))
    angles = 2 * math.pi * torch.arange(side)[:, None] / waves
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = along[:, None].expand(side, side, -1), along[None].expand(side, side, -1)
    return 0.3 * torch.cat([rows, columns], dim=2).reshape(side * side, width)


# ----------------------------------------------------------------------------------------- files


def _write_settings(folder: Path, template: str, first_control_id: int) -> None:
    ids = {entry["content"]: first_control_id + i for i, entry in enumerate(control_tokens())}
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    generation = {"bos_token_id": pad, "pad_token_id": pad, "do_sample": False, "eos_token_id": [end, pad]}
    pictures = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    videos = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_VIDEO_PIXELS}
    files = {
        "chat_template.json": {"chat_template": template},
        "generation_config.json": generation,
        "preprocessor_config.json": _official("preprocessor_config.json") | {"size": pictures},
        "video_preprocessor_config.json": _official("video_preprocessor_config.json") | {"size": videos},
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _official(name: str) -> dict[str, object]:
    values: dict[str, object] = json.loads((OFFICIAL / name).read_text(encoding="utf-8"))
    return values
