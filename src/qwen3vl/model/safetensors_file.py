"""Reading safetensors files piece by piece, straight into tensors that exist already.

The safetensors library maps a file into memory as a whole, so that a file's pages count towards the
process while its tensors are copied and converted. Here no more than PIECE_BYTES are held beside the
destination, whatever the file's size.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian length N, N bytes of JSON
{name: {dtype, shape, data_offsets: [begin, end]}}, then the data, offsets counted from its start.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import torch
from torch import Tensor

from qwen3vl.errors import WeightsError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
PIECE_BYTES = 16 * 2**20
_MAX_HEADER_BYTES = 100 * 2**20  # the library's own limit

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: `begin` is the byte offset in the file."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor of a file. Raises WeightsError if the file is damaged or cut off."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if size < 8 or header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise WeightsError(f"{path}: not a safetensors file, or cut off ({size} bytes)")
            header = json.loads(file.read(header_bytes))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: its header is not a JSON object")
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        try:
            begin, end = entry["data_offsets"]
            if not all(isinstance(n, int) and n >= 0 for n in (begin, end, *entry["shape"])):
                raise ValueError
            tensor = StoredTensor(path, DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + header_bytes + begin)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: entry {name!r} is malformed or of an unknown type ({entry})") from error
        if end - begin != tensor.num_bytes or tensor.begin + tensor.num_bytes > size:
            raise WeightsError(
                f"{path}: {name} needs bytes {tensor.begin}..{tensor.begin + tensor.num_bytes}, the file has {size}: "
                "damaged or not wholly downloaded"
            )
        tensors[name] = tensor
    return tensors


def read_into(
    stored: StoredTensor,
    destination: Tensor,
    transpose: bool = False,
    progress: Callable[[int], None] | None = None,
    staging: Tensor | None = None,
) -> None:
    """Fill `destination` (any dtype and device), optionally from a tensor whose last two axes are swapped.

    `progress` is told the bytes read; `staging` (uint8) is room to read into, see `new_staging`.
    Raises WeightsError if the file ends early.
    """
    target = destination.transpose(-1, -2) if transpose else destination.reshape(stored.shape)
    for rows, piece in read_pieces(stored, new_staging() if staging is None else staging):
        target[rows].copy_(piece) if stored.shape else target.copy_(piece.reshape(()))
        if progress is not None:
            progress(piece.nbytes)


def read_pieces(stored: StoredTensor, staging: Tensor, multiple: int = 1) -> Iterator[tuple[slice, Tensor]]:
    """The tensor in pieces along its first axis, each valid until the next: (rows, values as they are stored).

    Pieces but the last hold a multiple of `multiple` rows. Raises WeightsError if the file ends early.
    """
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.begin)
        for rows in _pieces(stored, multiple):
            shape = (rows.stop - rows.start, *stored.shape[1:])
            num_bytes = math.prod(shape) * stored.dtype.itemsize
            if num_bytes > len(staging):  # a single row that is larger than a piece
                staging = torch.empty(num_bytes, dtype=torch.uint8)
            _read_exactly(file, staging[:num_bytes], stored.path)
            yield rows, staging[:num_bytes].view(stored.dtype).view(shape)


def new_staging() -> Tensor:
    """One buffer for a whole checkpoint: many of them, freed between the weights, would leave holes in the heap."""
    return torch.empty(PIECE_BYTES, dtype=torch.uint8)


def _read_exactly(file: RawIOBase, room: Tensor, path: Path) -> None:
    view = memoryview(room.numpy())  # type: ignore[arg-type]
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise WeightsError(f"{path}: the file ended early")
        done += count


def _pieces(stored: StoredTensor, multiple: int) -> Iterator[slice]:
    """Slices along the first axis of at most PIECE_BYTES each (`multiple` rows at least)."""
    num_rows = stored.shape[0] if stored.shape else 1
    row_bytes = max(1, stored.num_bytes // max(1, num_rows))
    step = max(1, PIECE_BYTES // row_bytes // multiple) * multiple
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
