"""Tensors of which each process holds a part (DTensor), made whole for files and taken apart again."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def whole(value: Any) -> Any:
    """Sharded tensors within dicts, lists and tuples made whole, on the CPU; the others stay as they are.

    All processes must call it together. Where nothing is sharded nothing happens.
    """
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(each) for each in value)
    if isinstance(value, Tensor) and hasattr(value, "full_tensor"):
        return value.detach().full_tensor().cpu()  # type: ignore[attr-defined]
    return value


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, laid out as `like` is; the tensor itself where `like` is not sharded."""
    if not hasattr(like, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has read the same file, so nothing has to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]
