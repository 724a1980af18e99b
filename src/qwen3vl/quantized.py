"""Checkpoints with int4 or int8 weights, in folders that load at once: `qwen3vl.quantize(model, folder)`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from qwen3vl.errors import InvalidParams
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.calibration import Calibration, MatrixError, watching
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.hub import Hub, locate
from qwen3vl.model.positions import mrope_positions
from qwen3vl.model.quantize import Quantization
from qwen3vl.model.quantized_folder import quantization_of, save_quantized
from qwen3vl.model.vision import VisualFeatures
from qwen3vl.train.data import Example
from qwen3vl.train.examples import Encoded, Encoder
from qwen3vl.train.sources import DataFile
from qwen3vl.vlm import VLM, load

QUESTION = "Describe this picture in detail, and read all text in it."
ANSWER_TOKENS = 64  # that are written about each picture; what the model reads counts too
_DATA = (".jsonl", ".json")

Progress = Callable[[str, int, int], None]  # (what, done, of)


@dataclass(frozen=True, slots=True)
class Quantized:
    """What was written.

    Attributes:
        num_bytes, num_bytes_before: of the weights.
        errors: of the decoder's matrices on what the calibration was made with; empty without one.
    """

    folder: Path
    num_bytes: int
    num_bytes_before: int
    errors: tuple[MatrixError, ...] = ()


def quantize(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: Literal["int8", "int4"] = "int4",
    vision: Literal["int8"] | None = "int8",
    calibrate: Sequence[str | os.PathLike[str]] = (),
    source: Hub = "huggingface",
    revision: str | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write a checkpoint with quantised weights to a new or empty folder; `qwen3vl.load` maps it into memory.

    Args:
        model: a folder or a repository name.
        vision: the vision tower's weights; None leaves them in float32.
        calibrate: pictures, or .jsonl files of conversations as for training. The unquantised model reads them, and
            int4 weights are then chosen so that they do best on inputs like these. Ten or more that are like
            the later work are a good number; each takes as long as an answer.
        progress: told ("Calibrating" | "Quantising" | "Writing", done, of).

    Raises:
        InvalidParams, CheckpointError; DataError and MediaError for what it is calibrated with.
    """
    say, folder = progress or (lambda *_: None), Path(out)
    how = Quantization(Quantization.named(to).bits, None if vision is None else 8)
    if calibrate and to != "int4":
        raise InvalidParams("calibration is for int4: int8's rounding is small, and its scales are not searched")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidParams(f"{folder}: exists and is not an empty folder")
    examples = list(_examples(calibrate))
    checkpoint = locate(model, hub=source, revision=revision)
    if quantization_of(checkpoint) is not None:
        raise InvalidParams(f"{checkpoint}: is quantised already; quantise the original checkpoint")
    calibration = _calibrated(checkpoint, examples, say) if examples else None
    packed = load_model(
        checkpoint, quantize=how, calibration=calibration, progress=lambda done, of: say("Quantising", done, of)
    )
    say("Writing", 0, 0)
    save_quantized(packed, how, checkpoint, folder)
    after, before = (sum(p.stat().st_size for p in f.glob("*.safetensors")) for f in (folder, checkpoint))
    return Quantized(folder, after, before, () if calibration is None else tuple(calibration.errors()))


def _examples(names: Sequence[str | os.PathLike[str]]) -> Iterator[Example | Path]:
    """Conversations of data files; other names are pictures."""
    if isinstance(names, (str, os.PathLike)):
        raise InvalidParams("calibrate is a list: calibrate=['a.jpg']")
    for name in map(Path, names):
        if not name.is_file():
            raise InvalidParams(f"{name}: no such file to calibrate with")
        if name.suffix in _DATA:
            data = DataFile.open(name)
            yield from (data.example(i) for i in range(len(data)))
        else:
            yield name


def _calibrated(checkpoint: Path, examples: Sequence[Example | Path], say: Progress) -> Calibration:
    with load(checkpoint, device="cpu", progress=lambda done, of: say("Loading weights", done, of)) as handle:
        encoder = Encoder(handle.processor)
        with watching(handle.model) as means:
            for number, example in enumerate(examples):
                say("Calibrating", number, len(examples))
                if isinstance(example, Path):
                    handle.chat(QUESTION, [example], max_tokens=ANSWER_TOKENS)
                else:
                    _read(handle, encoder(example))
    return Calibration({name: mean.importance_K for name, mean in means.items()})


@torch.inference_mode()
def _read(handle: VLM, encoded: Encoded) -> None:
    """A whole conversation in one pass, with the logits of what is said in it."""
    model, inputs = handle.model, encoded.inputs
    positions_3T, _ = mrope_positions(inputs.num_tokens, inputs.spans, model.config.vision.spatial_merge_size)
    parts = []
    for visual in inputs.visuals:
        t, h, w = visual.grid_thw
        parts.append(model.encode_visuals(torch.from_numpy(visual.patches.read()), [(h, w)] * t))
    said = torch.from_numpy(encoded.labels_T >= 0).nonzero()[:, 0] - 1  # a label is predicted one token before it
    model(
        torch.from_numpy(inputs.input_ids_T),
        torch.from_numpy(positions_3T),
        ForwardContext.pack([inputs.num_tokens]),
        VisualFeatures.join(parts) if parts else None,
        logits_at=said,
    )
