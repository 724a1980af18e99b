"""From a checkpoint folder to a model and back, with nothing left over and nothing missing.

    name in the file                              name in Qwen3VL                shape in the file
    model.visual.*                                visual.*                       as the module's, but
      ...patch_embed.proj.weight                    (a matrix)                   [V, 3, 2, 16, 16] for [V, 1536]
    model.language_model.*                        language_model.*
      ...mlp.experts.gate_up_proj                   [E, 2I, D]                   that, or [E, D, 2I] as released
      ...mlp.experts.down_proj                      [E, D, I]                    that, or [E, I, D] as released
    lm_head.weight                                lm_head.weight               absent or unused where tied

All names and shapes are compared before a byte of data is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qwen3vl.config import ModelConfig, VisionConfig
from qwen3vl.errors import CheckpointNotFound, InvalidParams, UnsupportedOption, WeightsError
from qwen3vl.kernels.cpu.plain import TILE
from qwen3vl.model.calibration import Calibration
from qwen3vl.model.devices import place
from qwen3vl.model.quantize import Fill, Quantization, replace_layers
from qwen3vl.model.quantized_folder import load_quantized, quantization_of
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.safetensors_file import (
    INDEX_FILE,
    SINGLE_FILE,
    StoredTensor,
    new_staging,
    read_header,
    read_into,
    read_pieces,
)

SHARD_BYTES = 4 * 2**30

Progress = Callable[[int, int], None]  # (bytes done, of)


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | str = "auto",
    device: torch.device | str | None = None,
    device_map: str | Mapping[str, str] | None = None,
    attention: str | None = None,
    quantize: Quantization | None = None,
    calibration: Calibration | None = None,
    progress: Progress | None = None,
) -> Qwen3VL:
    """Load a folder in the official layout; memory stays at the weights plus some tens of megabytes.

    `dtype` "auto" is the one that config.json names, as in transformers, else that of the tensors; `device` None is
    the CPU; `device_map` "auto" spreads the layers over what the machine has. `quantize` packs the weights while they
    are read, errors weighed by `calibration`; what is not packed is float32 then. Raises ConfigError and WeightsError,
    naming keys and tensors.
    """
    folder = Path(folder)
    config = ModelConfig.from_folder(folder)
    stored_as = quantization_of(folder)
    if quantize is not None or stored_as is not None:
        device = _check_quantized(dtype, device, device_map)
    if stored_as is not None:
        if quantize not in (None, stored_as):
            raise UnsupportedOption(f"{folder}: is quantised already ({stored_as}), not as asked for ({quantize})")
        return load_quantized(folder, attention)
    plan = _plan(config, find_tensors(folder))
    dtype = torch.float32 if quantize is not None else parse_dtype(_stated(dtype, folder), plan)
    with torch.device("meta"):
        model = Qwen3VL(config)
    model.use_attention(attention)
    fills = {} if quantize is None else replace_layers(model, quantize)
    if calibration is not None:
        calibration.attach(model)
    device_of = place(config, dtype, device, device_map)
    total, done = sum(item.stored.num_bytes for item in plan.values()), 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(done, total)

    staging = new_staging()
    for name, item in plan.items():
        if name in fills:
            _fill(fills[name], item, advance, staging)
            continue
        tensor = torch.empty(item.shape, dtype=dtype, device=device_of(name))
        read_into(item.stored, tensor, item.transpose, advance, staging)
        _assign(model, name, tensor)
    if config.tie_word_embeddings and quantize is None:
        model.lm_head.weight = model.language_model.embed_tokens.weight
    left = [name for name, tensor in model.state_dict().items() if tensor.is_meta]
    assert not left, left
    return model.eval().requires_grad_(False)


def _check_quantized(
    dtype: torch.dtype | str, device: torch.device | str | None, device_map: str | Mapping[str, str] | None
) -> str:
    """-> the device of quantised models. Raises UnsupportedOption for others."""
    if device_map is not None or str(device) not in ("None", "auto", "cpu"):
        raise UnsupportedOption(f"quantize: quantised weights run on the CPU only, not on {device_map or device}")
    if str(dtype).removeprefix("torch.") not in ("auto", "float32"):
        raise UnsupportedOption(f"quantize: what is not quantised is float32; dtype={dtype} cannot be had beside it")
    return "cpu"


def save_model(model: Qwen3VL, folder: str | Path) -> None:
    """Write config.json and the weights in the official layout; transformers loads the folder.

    Processor and tokenizer files are the caller's to copy.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tied = model.config.tie_word_embeddings
    tensors = ((name, t) for name, t in model.state_dict().items() if not (tied and name == "lm_head.weight"))
    save_tensors(model.config, tensors, folder)


def save_tensors(config: ModelConfig, tensors: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write named tensors (names of Qwen3VL) as shards with an index, one shard in memory at a time."""
    from safetensors.torch import save_file

    shard: dict[str, Tensor] = {}
    shards: list[list[str]] = []
    sizes: list[int] = []

    def flush() -> None:
        shards.append(list(shard))
        sizes.append(sum(t.nbytes for t in shard.values()))
        save_file(shard, folder / _shard_name(len(shards)), metadata={"format": "pt"})
        shard.clear()

    for name, tensor in tensors:
        stored = _to_file_layout(name, tensor, config.vision)
        if shard and sum(t.nbytes for t in shard.values()) + stored.nbytes > SHARD_BYTES:
            flush()
        shard[file_name(name)] = stored
    flush()
    if len(shards) == 1:
        (folder / _shard_name(1)).rename(folder / SINGLE_FILE)
    else:
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards, start=1):
            final = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            (folder / _shard_name(number)).rename(folder / final)
            weight_map |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def file_name(name: str) -> str:
    """The checkpoint's name of a tensor of Qwen3VL."""
    return name if name == "lm_head.weight" else f"model.{name}"


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder, by their names in the files, from headers alone."""
    if not folder.is_dir():
        raise CheckpointNotFound(f"{folder}: no such folder")
    index = folder / INDEX_FILE
    if not index.exists():
        if not (folder / SINGLE_FILE).exists():
            raise CheckpointNotFound(f"{folder}: holds neither {SINGLE_FILE} nor {INDEX_FILE}")
        return read_header(folder / SINGLE_FILE)
    try:
        weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        missing = [shard for shard in shards if not (folder / shard).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: is not a weight index ({error!r})") from error
    if missing:
        raise WeightsError(f"{folder}: {len(missing)} of {len(shards)} weight files missing: {', '.join(missing)}")
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        tensors |= read_header(folder / shard)
    absent = sorted(set(weight_map) - set(tensors))
    if absent:
        raise WeightsError(f"{index}: names tensors that its files do not hold: {_some(absent)}")
    return tensors


def _stated(dtype: torch.dtype | str, folder: Path) -> torch.dtype | str:
    """For "auto" the dtype of config.json, where there is one: half-precision files may be meant for float32."""
    if dtype != "auto":
        return dtype
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return stated.get("dtype") or stated.get("torch_dtype") or "auto"


def parse_dtype(dtype: torch.dtype | str, plan: Mapping[str, _Planned] | None = None) -> torch.dtype:
    """A dtype or its name; "auto" is what most of the stored values have."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto" and plan is not None:
        counts: dict[torch.dtype, int] = {}
        for item in plan.values():
            counts[item.stored.dtype] = counts.get(item.stored.dtype, 0) + item.stored.num_bytes
        return max(counts, key=lambda key: counts[key])
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype.removeprefix("torch.") not in names:
        raise InvalidParams(f"dtype {dtype!r} is not known: choose auto, {', '.join(names)}")
    return names[dtype.removeprefix("torch.")]


@dataclass(frozen=True, slots=True)
class _Planned:
    """One tensor to load: where it lies, the shape it gets, and whether its last two axes are swapped."""

    stored: StoredTensor
    shape: tuple[int, ...]
    transpose: bool = False


def _plan(config: ModelConfig, stored: Mapping[str, StoredTensor]) -> dict[str, _Planned]:
    """Match every tensor of the model with one of the files, both ways. Raises WeightsError."""
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in Qwen3VL(config).state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    problems = []
    missing = [file_name(name) for name in wanted if file_name(name) not in stored]
    if missing:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    unexpected = sorted(set(stored) - {file_name(name) for name in wanted})
    if config.tie_word_embeddings:  # a copy of the embeddings that some files carry
        unexpected = [name for name in unexpected if name != "lm_head.weight"]
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {_some(unexpected)}")
    plan, misshaped = {}, []
    for name, shape in wanted.items():
        if file_name(name) not in stored:
            continue
        item = _match(name, shape, stored[file_name(name)], config.vision)
        if item is None:
            misshaped.append(f"{file_name(name)} is {list(stored[file_name(name)].shape)}, not {list(shape)}")
        else:
            plan[name] = item
    if misshaped:
        problems.append(f"{len(misshaped)} mis-shaped: {_some(misshaped)}")
    if problems:
        folder = next(iter(stored.values())).path.parent if stored else Path()
        raise WeightsError(f"{folder}: the weights do not fit config.json; tensors " + "; ".join(problems))
    return plan


def _match(name: str, shape: tuple[int, ...], stored: StoredTensor, vision: VisionConfig) -> _Planned | None:
    if not stored.dtype.is_floating_point or stored.dtype.itemsize == 1:
        raise UnsupportedOption(
            f"{stored.path}: {file_name(name)} is {stored.dtype}; quantised weights are not supported"
        )
    expected = _patch_shape(vision) if name == "visual.patch_embed.proj.weight" else shape
    if stored.shape == expected:
        return _Planned(stored, shape)
    if ".experts." in name and stored.shape == (shape[0], shape[2], shape[1]):
        return _Planned(stored, shape, transpose=True)
    return None


def _fill(fill: Fill, item: _Planned, advance: Callable[[int], None], staging: Tensor) -> None:
    """Hand a tensor to the packed layer that it belongs to, piece by piece."""
    for rows, piece in read_pieces(item.stored, staging, multiple=1 if len(item.shape) == 3 else TILE):
        fill(rows.start, piece.transpose(-1, -2) if item.transpose else piece)
        advance(piece.nbytes)


def _patch_shape(vision: VisionConfig) -> tuple[int, ...]:
    side = vision.patch_size
    return (vision.hidden_size, vision.in_channels, vision.temporal_patch_size, side, side)


def _to_file_layout(name: str, tensor: Tensor, vision: VisionConfig) -> Tensor:
    tensor = tensor.detach().cpu()
    if name == "visual.patch_embed.proj.weight":
        tensor = tensor.reshape(_patch_shape(vision))
    if ".experts." in name:
        tensor = tensor.transpose(1, 2)
    return tensor.contiguous()


def _assign(model: torch.nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(tensor, requires_grad=False))


def _shard_name(number: int) -> str:
    return f"part-{number:05d}.safetensors"


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
