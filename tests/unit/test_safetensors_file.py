"""The safetensors reader against the library's own writer, and on damaged headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qwen3vl.errors import WeightsError
from qwen3vl.model import safetensors_file
from qwen3vl.model.safetensors_file import DTYPES, read_header, read_into

TENSORS = {
    "matrix": torch.arange(12.0).reshape(3, 4),
    "half": torch.arange(6).reshape(2, 3).bfloat16(),
    "experts": torch.arange(24.0).reshape(2, 3, 4),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "vector": torch.arange(7, dtype=torch.float16),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    return tmp_path / "a.safetensors"


def write_raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_header(file: Path) -> None:
    header = read_header(file)
    assert header.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (header[name].shape, header[name].dtype) == (tuple(tensor.shape), tensor.dtype)
        assert header[name].num_bytes == tensor.nbytes


@pytest.mark.parametrize("piece_bytes", [1, 20, 2**20])
@pytest.mark.parametrize("name", TENSORS)
def test_read_in_pieces(name: str, piece_bytes: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors_file, "PIECE_BYTES", piece_bytes)
    counted: list[int] = []
    out = torch.full_like(TENSORS[name], -1)
    read_into(read_header(file)[name], out, progress=counted.append)
    assert torch.equal(out, TENSORS[name]) and sum(counted) == out.nbytes


def test_read_into_another_dtype_shape_and_orientation(file: Path) -> None:
    header = read_header(file)
    out = torch.empty(12, dtype=torch.bfloat16)
    read_into(header["matrix"], out)
    assert torch.equal(out, TENSORS["matrix"].flatten().bfloat16())
    out = torch.empty(2, 4, 3, dtype=torch.float64)
    read_into(header["experts"], out, transpose=True)
    assert torch.equal(out, TENSORS["experts"].transpose(1, 2).double())


def test_every_dtype_has_its_size() -> None:
    """The name ends in the number of bits, but for the two 8-bit floats."""
    for name, dtype in DTYPES.items():
        bits = 8 if name.startswith("F8") else int(name.lstrip("BFIU"))
        assert dtype.itemsize * 8 == bits, name


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": "ab", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": [], "shape": [2], "data_offsets": [0, 8]},
    ],
)
def test_malformed_entry(entry: Any, tmp_path: Path) -> None:
    path = write_raw(tmp_path / "b.safetensors", {"weight": entry}, bytes(8))
    with pytest.raises(WeightsError, match=r"b\.safetensors.*weight"):
        read_header(path)


def test_the_same_entry_well_formed(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    assert read_header(write_raw(tmp_path / "b.safetensors", {"weight": entry}, bytes(8)))["weight"].num_bytes == 8


@pytest.mark.parametrize("header", [None, [], 3, "text"])
def test_header_of_another_kind(header: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a JSON object"):
        read_header(write_raw(tmp_path / "b.safetensors", header))


def test_header_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    path.write_bytes((500_000).to_bytes(8, "little") + b"[" * 500_000)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
