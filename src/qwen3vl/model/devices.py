"""Which part of the model lives on which device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from qwen3vl.config import ModelConfig
from qwen3vl.errors import InvalidParams

DeviceMap: TypeAlias = "str | Mapping[str, str] | None"
DeviceOf = Callable[[str], torch.device]  # tensor name -> device

_RESERVE = 0.8  # share of a GPU's free memory that weights may take; the rest is for cache and activations


def best_device() -> torch.device:
    """cuda where there is one, else the CPU. (mps waits until the parity tests have passed on it.)"""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def place(
    config: ModelConfig, dtype: torch.dtype, device: torch.device | str | None, device_map: DeviceMap
) -> DeviceOf:
    """-> the device of each tensor, by its name in Qwen3VL.

    `device_map` is None, "auto", a device for everything ("cuda:1"), or {name prefix: device}, of which
    the longest prefix that fits decides and "" stands for the rest.
    """
    if device is not None and device_map is not None:
        raise InvalidParams("device and device_map exclude each other: give one of them")
    if device_map is None:
        everything = best_device() if device == "auto" else parse_device(device or "cpu")
        return lambda name: everything
    if isinstance(device_map, str):
        if device_map != "auto":
            everything = parse_device(device_map)
            return lambda name: everything
        free = [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]
        device_map = spread(config, dtype, free)
    table = {prefix.removeprefix("model."): parse_device(name) for prefix, name in device_map.items()}

    def device_of(name: str) -> torch.device:
        fitting = [prefix for prefix in table if prefix == "" or name == prefix or name.startswith(prefix + ".")]
        if not fitting:
            raise InvalidParams(f"device_map has no entry for {name}; '' stands for all the rest")
        return table[max(fitting, key=len)]

    return device_of


def spread(config: ModelConfig, dtype: torch.dtype, free_bytes: Sequence[int]) -> dict[str, str]:
    """Fill GPUs 0, 1, ... with consecutive decoder layers, and the CPU with what does not fit.

    The vision tower, the embeddings, the final norm and the head go to the first GPU. Without a GPU
    everything is on the CPU.
    """
    from qwen3vl.model.qwen3vl import Qwen3VL

    if not free_bytes:
        return {"": "cpu"}
    with torch.device("meta"):
        model = Qwen3VL(config)
    layers = [sum(p.numel() for p in layer.parameters()) * dtype.itemsize for layer in model.language_model.layers]
    rest = sum(p.numel() for p in model.parameters()) * dtype.itemsize - sum(layers)
    room = [int(_RESERVE * free) for free in free_bytes]
    room[0] -= rest
    if room[0] < 0:
        return {"": "cpu"}
    table, gpu = {"": "cuda:0"}, 0
    for i, size in enumerate(layers):
        while gpu < len(room) and room[gpu] < size:
            gpu += 1
        if gpu < len(room):
            room[gpu] -= size
        table[f"language_model.layers.{i}"] = f"cuda:{gpu}" if gpu < len(room) else "cpu"
    return table


def parse_device(device: torch.device | str) -> torch.device:
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise InvalidParams(f"device {device!r} is not known") from error
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParams(f"device {device!r}: this machine has no CUDA device that torch can use")
    return parsed
