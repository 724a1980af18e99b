"""What goes into the package: half the bytes, the same weights to three digits, nothing left of an earlier model."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qwen3vl.model.checkpoint import load_model
from qwen3vl.processor.processor import Processor
from qwen3vl.train.small import make_small

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "pack_small.py"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "model"
    make_small(folder, "tiny", vocab_size=310, texts=["a text"])
    return folder


def test_packing(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    for name in ("README.md", "results.json", "model-00001-of-00002.safetensors"):
        (out / name).write_text("old")
    size = SCRIPT["pack"](trained, out)
    assert (out / "README.md").read_text() == (out / "results.json").read_text() == "old"
    assert not list(out.glob("model-*"))
    assert size == sum(path.stat().st_size for path in out.iterdir())
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.float16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    packed, true = load_model(out), load_model(trained)
    assert packed.dtype == torch.float32
    for name, tensor in packed.state_dict().items():
        assert torch.equal(tensor, true.state_dict()[name].half().float()), name
    assert Processor.from_folder(out).picture_settings == Processor.from_folder(trained).picture_settings


def test_the_newest_weights_of_the_recipe(trained: Path, tmp_path: Path) -> None:
    """Processor files come from its beginning, weights from its last stage."""
    made = tmp_path / "made"
    shutil.copytree(trained, made / "new")
    make_small(made / "see" / "model", "tiny", vocab_size=310, texts=["a text"], seed=5)
    SCRIPT["pack"](made, tmp_path / "small")
    packed, last = (load_model(folder).state_dict() for folder in (tmp_path / "small", made / "see" / "model"))
    assert all(torch.equal(packed[name], last[name].half().float()) for name in last)


def test_a_model_that_is_too_large_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPT["pack"].__globals__, "MOST_PARAMETERS", 1000)
    with pytest.raises(SystemExit, match="1,000 may be shipped"):
        SCRIPT["pack"](trained, tmp_path / "small")
    assert not (tmp_path / "small").exists()
