"""From what a user calls a model to a folder on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from qwen3vl.errors import CheckpointNotFound, UnsupportedOption

Hub = Literal["huggingface", "modelscope"]

DEFAULT_MODEL = "Qwen/Qwen3-VL-4B-Instruct"
SMALL = "small"
SMALL_FOLDER = Path(__file__).parents[1] / "small"
_WANTED = ["*.json", "*.jinja", "*.txt", "*.safetensors"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OTHER_WAYS = (
    "give a folder that holds the checkpoint, or write one with random weights: "
    "qwen3vl random-checkpoint --edition 2b --shrink --out DIR"
)


def locate(
    model: str | os.PathLike[str],
    *,
    hub: Hub = "huggingface",
    revision: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """A folder as it is, or the local copy of a repository, downloaded if it is not there yet.

    The text "small" is the trained small model that comes with the package, even where the working directory has a
    folder of that name: that one is "./small", or a Path. Downloads show a progress bar, go on where they were
    interrupted, and use the hub's own cache, which also serves without a network. Raises CheckpointNotFound.
    """
    if model == SMALL:
        return _shipped()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    name = os.fspath(model)
    if not _HUB_ID.fullmatch(name):
        raise CheckpointNotFound(
            f"{name}: no such folder, and not a repository name like {DEFAULT_MODEL}; {_OTHER_WAYS}"
        )
    if hub == "modelscope":
        return _from_modelscope(name, revision, cache_dir, local_files_only)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=_WANTED,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointNotFound(
            f"{name}: cannot be downloaded and is not in the local cache ({_first_line(error)}); {_OTHER_WAYS}"
        ) from error
    return Path(path)


def _shipped() -> Path:
    if not (SMALL_FOLDER / "model.safetensors").is_file():
        raise CheckpointNotFound(
            f"{SMALL}: the weights of the small model are not in this installation ({SMALL_FOLDER}); "
            "`make small-model` in the source tree trains them. A folder of that name is ./small"
        )
    return SMALL_FOLDER


def _from_modelscope(name: str, revision: str | None, cache_dir: str | None, local_files_only: bool) -> Path:
    try:
        from modelscope import snapshot_download
    except ImportError as error:
        raise UnsupportedOption("ModelScope needs its package: pip install 'qwen3vl[modelscope]'") from error
    try:
        path = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_file_pattern=_WANTED,
        )
    except Exception as error:  # its own tree is not documented
        raise CheckpointNotFound(
            f"{name}: cannot be had from ModelScope ({_first_line(error)}); {_OTHER_WAYS}"
        ) from error
    return Path(path)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
