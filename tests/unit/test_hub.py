"""What a user calls a model becomes a folder, or an error that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest

from qwen3vl.errors import CheckpointNotFound, UnsupportedOption
from qwen3vl.model import hub
from qwen3vl.model.hub import DEFAULT_MODEL, locate


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen" / "local").mkdir(parents=True)
    assert locate("Qwen/local") == Path("Qwen/local")  # a folder comes before a repository of that name


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "a/b/c", "../up"])
def test_what_is_neither_folder_nor_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointNotFound, match="random-checkpoint"):
        locate(name)


def test_offline_without_a_cache(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="cannot be downloaded and is not in the local cache"):
        locate(DEFAULT_MODEL, cache_dir=str(tmp_path), local_files_only=True)


def test_the_local_cache_serves_offline(tmp_path: Path) -> None:
    repository = tmp_path / "models--Qwen--Qwen3-VL-4B-Instruct"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert locate(DEFAULT_MODEL, cache_dir=str(tmp_path), local_files_only=True) == snapshot


def test_what_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **options: Any) -> str:
        asked.update(name=name, **options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert locate("Qwen/Qwen3-VL-2B-Instruct", revision="abc") == tmp_path
    assert asked["name"] == "Qwen/Qwen3-VL-2B-Instruct"
    assert asked["revision"] == "abc"
    assert "*.safetensors" in asked["allow_patterns"]


def test_modelscope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(UnsupportedOption, match=r"qwen3vl\[modelscope\]"):
        locate(DEFAULT_MODEL, hub="modelscope")
    fake = ModuleType("modelscope")
    fake.snapshot_download = lambda name, **options: str(tmp_path / name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", fake)
    assert locate(DEFAULT_MODEL, hub="modelscope") == tmp_path / DEFAULT_MODEL


def test_small_is_the_one_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    shipped = tmp_path / "package"
    shipped.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "SMALL_FOLDER", shipped)
    assert locate("./small") == locate(Path("small")) == Path("small")
    with pytest.raises(CheckpointNotFound, match=r"make small-model.*\./small"):
        locate("small")
    (shipped / "model.safetensors").touch()
    assert locate("small") == shipped
