"""From a path, a URL or bytes to something that a decoder can open, under a MediaPolicy.

Local files are not read here: a decoder opens them by path. Downloads are held in memory, or in a
temporary file that lives as long as its Media (`to_file`, for videos).
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import stat
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, unquote_to_bytes
from urllib.request import url2pathname

from qwen3vl.errors import MediaDecodeError, MediaForbidden, MediaNotFound, MediaTooLarge
from qwen3vl.processor.policy import MediaPolicy

__all__ = ["Media", "MediaPolicy", "MediaSource", "display_name", "fetch"]

MediaSource = str | os.PathLike[str] | bytes

# Two letters at least: "C:\..." is a path on Windows.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):(//)?")
_LONGEST_NAME = 120


class _TemporaryFile:
    """Deletes `path` when nothing refers to it any more, or when Python ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        weakref.finalize(self, path.unlink, missing_ok=True)


@dataclass(frozen=True, slots=True)
class Media:
    """One fetched picture or video: exactly one of `path` and `data` is set.

    Attributes:
        name: for people and messages; never holds credentials or the text of a data: URL.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None
    _owner: _TemporaryFile | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert (self.path is None) != (self.data is None), self.name

    def __reduce__(self) -> tuple[type[Media], tuple[str, Path | None, bytes | None]]:
        return Media, (self.name, self.path, self.data)  # a copy sent to a worker does not own the file

    def open(self) -> BinaryIO:
        """Raises MediaNotFound if the file is gone or may not be read."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        try:
            return self.path.open("rb")
        except OSError as error:
            raise MediaNotFound(f"{self.name}: cannot be opened ({error.strerror or error})") from error


def fetch(source: MediaSource, policy: MediaPolicy, *, to_file: bool = False) -> Media:
    """`source` as something to decode.

    Args:
        source: a path, an http(s), file or data URL, or the encoded bytes themselves.
        to_file: put a download into a temporary file instead of memory.

    Raises:
        MediaNotFound, MediaForbidden, MediaTooLarge, MediaTimeout, MediaDecodeError (a broken data: URL).
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        _check_bytes("<bytes>", len(data), policy)
        return Media("<bytes>", data=data)
    if not isinstance(source, str):
        return _local(Path(source), policy)
    scheme = _scheme(source)
    if scheme == "data":
        return Media(display_name(source), data=_decode_data_url(source, policy))
    if scheme == "file":
        return _local(_file_url_path(source), policy)
    if scheme is not None:
        from qwen3vl.processor.download import download

        data_or_path = download(source, display_name(source), policy, to_file=to_file)
        if isinstance(data_or_path, Path):
            return Media(display_name(source), path=data_or_path, _owner=_TemporaryFile(data_or_path))
        return Media(display_name(source), data=data_or_path)
    return _local(Path(source), policy)


def display_name(source: MediaSource) -> str:
    """A name for messages and receipts: data: URLs are shortened, credentials and queries left out."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "<bytes>"
    text = os.fspath(source)
    scheme = _scheme(text) if isinstance(source, str) else None
    if scheme == "data":
        return f"{text[:40]}... ({len(text)} characters)" if len(text) > 60 else text
    if scheme not in (None, "file"):
        text = _without_secrets(text)
    return text if len(text) <= _LONGEST_NAME else f"{text[:60]}...{text[-40:]}"


def _scheme(source: str) -> str | None:
    match = _SCHEME.match(source)
    if match is None:
        return None
    scheme = match[1].lower()
    return scheme if match[2] or scheme in ("data", "file", "http", "https") else None


def _without_secrets(url: str) -> str:
    """`https://user:key@host/a.png?signature=1` -> `https://host/a.png?...`"""
    head, query, _ = url.partition("?")
    scheme, slashes, rest = head.partition("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{authority.rpartition('@')[2]}{slash}{path.partition('#')[0]}{'?...' if query else ''}"


def _check_bytes(name: str, size: int, policy: MediaPolicy) -> None:
    if size > policy.max_bytes:
        raise MediaTooLarge(f"{name}: {size} bytes, above the limit of {policy.max_bytes} (MediaPolicy.max_bytes)")


def _local(path: Path, policy: MediaPolicy) -> Media:
    """A regular file that the policy allows. Without leave, not even its existence is told."""
    name = display_name(path)
    if not policy.allow_files:
        raise MediaForbidden(f"{name}: local files are not allowed here (MediaPolicy.allow_files)")
    try:
        resolved = path if policy.file_roots is None else path.resolve()
        roots = [root.resolve() for root in policy.file_roots or ()]
        mode = (
            None
            if policy.file_roots is not None and not any(map(resolved.is_relative_to, roots))
            else resolved.stat().st_mode
        )
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        hint = "; bare base64 needs a data:image/...;base64, in front" if len(str(path)) > 255 else ""
        raise MediaNotFound(f"{name}: {getattr(error, 'strerror', None) or error}{hint}") from error
    if mode is None:
        raise MediaForbidden(f"{name}: outside the folders that may be read (MediaPolicy.file_roots)")
    if stat.S_ISDIR(mode):
        raise MediaNotFound(f"{name}: is a folder, not a file")
    if not stat.S_ISREG(mode):  # a pipe or a device would block or never end
        raise MediaForbidden(f"{name}: is not a regular file")
    return Media(name, path=resolved)


def _file_url_path(url: str) -> Path:
    # urlsplit would end the path at "#" or "?", which people write unescaped in file names.
    rest = url[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise MediaForbidden(f"{display_name(url)}: file: URLs of other hosts ({host}) cannot be read")
        rest = slash + path
    return Path(url2pathname(rest))


def _decode_data_url(url: str, policy: MediaPolicy) -> bytes:
    """RFC 2397: data:[<type>][;base64],<data>, percent-encoded where it is not base64."""
    name = display_name(url)
    header, comma, payload = url.partition(",")
    if not comma:
        raise MediaDecodeError(f"{name}: a data: URL needs a comma between its header and its data")
    if not header.lower().rstrip().endswith(";base64"):
        data = unquote_to_bytes(payload)
        _check_bytes(name, len(data), policy)
        return data
    _check_bytes(name, len(payload) * 3 // 4 - 2, policy)  # before anything that size is made
    compact = re.sub(r"\s+", "", unquote(payload) if "%" in payload else payload)
    if "-" in compact or "_" in compact:
        compact = compact.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaDecodeError(f"{name}: broken base64 ({error})") from error
