"""Fonts that have the letters of a label, whatever its script.

Looked for in the folder named by QWEN3VL_FONTS, then among the system's fonts (fontconfig, else the
usual folders). What a font has is read from its cmap table (OpenType 1.9, formats 4 and 12).
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_ENDS = (".ttf", ".otf", ".ttc")
_PREFERRED = ("notosans-regular", "dejavusans.", "arial.", "helvetica", "segoeui.", "liberationsans-regular")
_AVOIDED = (
    "bold",
    "italic",
    "oblique",
    "mono",
    "condensed",
    "light",
    "thin",
    "black",
    "serif",
    "symbol",
    "emoji",
    "math",
)


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of a text in one font."""

    text: str
    font: Font


def runs(text: str, size: int) -> tuple[list[Run], str | None]:
    """The text in pieces from left to right, each in a font of `size` pixels that has its letters, and a note
    if some have none.

    One font for the whole text is preferred, so that letters that join (Arabic, Devanagari) stay together.
    """
    whole = _font_with(frozenset(_needed(text)))
    if whole:
        return [Run(text, _load(whole, size))], None
    pieces: list[tuple[str, str | None]] = []
    for char in text:
        path = pieces[-1][1] if pieces and not _needed(char) else _font_with(frozenset(_needed(char)))
        if pieces and (pieces[-1][1] == path or unicodedata.combining(char)):
            pieces[-1] = (pieces[-1][0] + char, pieces[-1][1])
        else:
            pieces.append((char, path))
    missing = sorted({c for c in _needed(text) if _font_with(frozenset(c)) is None and ord(c) > 0xFF})
    note = None
    if missing:
        shown = "".join(missing[:20])
        note = f"no font here has the letters {shown!r}: install one (Noto) or name a folder in QWEN3VL_FONTS"
    made = [Run(piece, _load(path, size)) for piece, path in pieces]
    return (made[::-1] if _from_right(text) else made), note


def _from_right(text: str) -> bool:
    """Whether the first letter with a direction runs from right to left: then the first run stands rightmost."""
    return next(
        (unicodedata.bidirectional(c) != "L" for c in text if unicodedata.bidirectional(c) in ("L", "R", "AL")), False
    )


def _needed(text: str) -> set[str]:
    """Characters that need a glyph: no spaces, controls, joiners and variation selectors."""
    return {c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf", "Mn")}


@lru_cache(maxsize=4096)
def _font_with(chars: frozenset[str]) -> str | None:
    return next((path for path in font_files() if _has(path, chars)), None)


@lru_cache(maxsize=64)
def _load(path: str | None, size: int) -> Font:
    return ImageFont.truetype(path, size) if path else ImageFont.load_default(size)


@lru_cache(maxsize=1)
def font_files() -> tuple[str, ...]:
    """All fonts found, those that suit labels first."""
    found: list[str] = []
    if named := os.environ.get("QWEN3VL_FONTS"):
        found += _files_in([named])
    found += _by_fontconfig() or _files_in(FOLDERS)
    return tuple(sorted(dict.fromkeys(found), key=_rank))


def _rank(path: str) -> tuple[int, int, str]:
    name = Path(path).name.lower()
    preferred = next((i for i, known in enumerate(_PREFERRED) if name.startswith(known)), len(_PREFERRED))
    return preferred, sum(word in name for word in _AVOIDED), name


def _by_fontconfig() -> list[str]:
    if sys.platform == "win32":
        return []
    try:
        listed = subprocess.run(
            ["fc-list", "--format", "%{file}\n"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in listed.stdout.splitlines() if line.lower().endswith(_ENDS)]


def _files_in(folders: Iterable[str]) -> list[str]:
    paths = (p for folder in folders for p in sorted(Path(folder).expanduser().rglob("*")))
    return [str(p) for p in paths if p.suffix.lower() in _ENDS]


# ------------------------------------------------------------------------------------------- cmap


def has_letters(path: str, text: str) -> bool:
    """Whether a font file has all these characters, by its cmap table (spaces count as any other)."""
    return _has(path, frozenset(text))


def _has(path: str, chars: frozenset[str]) -> bool:
    starts, ends = _coverage(path)
    for char in chars:
        at = bisect_right(starts, ord(char)) - 1
        if at < 0 or ends[at] < ord(char):
            return False
    return True


@lru_cache(maxsize=2048)
def _coverage(path: str) -> tuple[list[int], list[int]]:
    """Rising ranges (first characters, last characters) of a font; empty if it cannot be read."""
    try:
        table = _cmap(Path(path))
        ranges = sorted(_ranges(table))
    except (OSError, struct.error, IndexError):
        return [], []
    return [first for first, _ in ranges], [last for _, last in ranges]


def _cmap(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"ttcf":  # a collection: its first font
            file.seek(struct.unpack(">I", file.read(4))[0])
            head = file.read(12)
        count = struct.unpack(">H", head[4:6])[0]
        for _ in range(count):
            tag, _, offset, length = struct.unpack(">4sIII", file.read(16))
            if tag == b"cmap":
                file.seek(offset)
                return file.read(length)
    return b"\0\0\0\0"


def _ranges(table: bytes) -> Iterable[tuple[int, int]]:
    """Ranges of the best Unicode subtable: format 12 (all planes) before format 4."""
    best: tuple[int, int] | None = None
    for at in range(4, 4 + 8 * struct.unpack_from(">H", table, 2)[0], 8):
        platform, _, offset = struct.unpack_from(">HHI", table, at)
        form = struct.unpack_from(">H", table, offset)[0]
        if platform in (0, 3) and form in (4, 12) and (best is None or form > best[0]):
            best = (form, offset)
    if best is None:
        return []
    form, offset = best
    if form == 12:
        groups = struct.unpack_from(">I", table, offset + 12)[0]
        return [struct.unpack_from(">II", table, offset + 16 + 12 * i) for i in range(groups)]
    segments = struct.unpack_from(">H", table, offset + 6)[0] // 2
    ends = struct.unpack_from(f">{segments}H", table, offset + 14)
    starts = struct.unpack_from(f">{segments}H", table, offset + 16 + 2 * segments)
    return [(a, b) for a, b in zip(starts, ends, strict=True) if a != 0xFFFF]
