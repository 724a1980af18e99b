"""What media may be fetched and how much of it may be decoded: one frozen object for a whole process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.errors import InvalidParams
from qwen3vl.settings import check_integer, check_number

KNOWN_SCHEMES = ("https", "http")


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """Where media may come from, and its limits. `bytes` and data: URLs are always allowed.

    Attributes:
        allow_files: paths and file: URLs may be read.
        file_roots: when set, only files below one of these folders, symbolic links resolved.
        schemes: network schemes that may be fetched, of "https" and "http"; () is no network.
        allowed_hosts: when set, only these hosts; "*.example.com" stands for every host below example.com.
        allow_private_addresses: loopback, private, link-local and reserved addresses may be contacted.
            Otherwise every address a host resolves to is checked, and the connection goes to a
            checked one; redirects are checked in the same way.
        max_redirects: how many redirects are followed.
        max_bytes: bound on a download, a data: URL, bytes, and on a local picture file.
        timeout: seconds for a whole download, from resolving the host to the last byte.
        max_pixels: bound on width x height of a picture or of a frame, read from the header.
        max_frames, max_seconds: bounds on a video file, read from its header.
        decode_timeout: seconds for decoding one picture or video. Exact with `isolate`; without it,
            checked each time the decoder asks for more of the file.
        isolate: decode in worker processes with limits on memory and time (processor/isolation.py).
    """

    allow_files: bool = True
    file_roots: tuple[Path, ...] | None = None
    schemes: tuple[str, ...] = ("https",)
    allowed_hosts: tuple[str, ...] | None = None
    allow_private_addresses: bool = False
    max_redirects: int = 5
    max_bytes: int = 1 << 30
    timeout: float = 60.0
    max_pixels: int = 256_000_000
    max_frames: int = 10_000_000
    max_seconds: float = 24 * 3600.0
    decode_timeout: float = 600.0
    isolate: bool = False

    def __post_init__(self) -> None:
        if self.file_roots is not None:
            object.__setattr__(self, "file_roots", tuple(Path(root) for root in self.file_roots))
        for name in ("schemes", "allowed_hosts"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise InvalidParams(f"{name} must be a tuple of strings, not the string {value!r}")
            if value is not None:
                object.__setattr__(self, name, tuple(item.lower() for item in value))
        if unknown := set(self.schemes) - set(KNOWN_SCHEMES):
            raise InvalidParams(f"schemes holds {sorted(unknown)}: only {', '.join(KNOWN_SCHEMES)} can be fetched")
        for name in ("max_bytes", "max_pixels", "max_frames"):
            check_integer(name, getattr(self, name), minimum=1, required=True)
        check_integer("max_redirects", self.max_redirects, minimum=0, required=True)
        for name in ("timeout", "max_seconds", "decode_timeout"):
            check_number(name, getattr(self, name), 0, math.inf, required=True, open_low=True, open_high=True)

    @classmethod
    def library(cls) -> MediaPolicy:
        """For a program that trusts its caller: local files and https."""
        return cls()

    @classmethod
    def server(cls) -> MediaPolicy:
        """For requests of strangers: neither local files nor network, tighter limits, isolated decoding."""
        return cls(
            allow_files=False,
            schemes=(),
            max_bytes=256 << 20,
            timeout=30.0,
            max_pixels=100_000_000,
            max_frames=1_000_000,
            max_seconds=4 * 3600.0,
            decode_timeout=60.0,
            isolate=True,
        )
