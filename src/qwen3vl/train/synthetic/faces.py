"""Fonts of each side, and their glyphs ready to be set.

A face belongs to a clan: its family without weights and widths, and together with the families that share its
drawings under another name (Carlito is Lato, TeX Gyre Heros is Nimbus Sans). Whole clans are held out.
Faces are looked for as tasks/fonts.py does; scripts/training_packages.sh installs a good choice.
Hinting makes FreeType slow (about 50 us a glyph), so glyphs are kept per face and size.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import ImageFont

from qwen3vl.errors import InvalidParams
from qwen3vl.tasks.fonts import font_files, has_letters
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import side_of

Kind = Literal["plain", "mono", "fancy"]
MOST_OF_A_CLAN = 6  # faces
NEEDED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-/()%&+'!?#$@*_=;[]<>\""
_USUAL = frozenset(NEEDED + " ")
_NOT_TEXT = re.compile(
    r"symbol|emoji|math|dingbat|music|initials|keyboard|outline|ornament|integrals|nonunicode|variants|sizef|sizeo|sizet"
    r"|small\s?caps|braille|script std|style std|awesome|ancient|opensymbol|noto (?!sans$|serif$|sans mono$|mono$)"
    r"|kufi|nastaliq|naskh|tamil|lao|thai|redacted|barcode|unifont|last resort|wargames|penguin attack|flatline"
    r"|hairline|thin|ultra ?light"  # nothing is left of them at the sizes of text
    r"|because we|humor sans|ocr b [a-z]$|ocr b [a-z] |femkeklaver|okolaks",  # no small letters, negative, outlined
    re.IGNORECASE,
)
_FANCY = re.compile(
    r"dancing|breip|kaushan|dkghand|rufscript|comic|tomson|ecolier|kristi|lobster|leckerli"
    r"|bebas|radis|engadget|eurofur|opendys|compagnon|cherry|delphine|steve|chorus|domestic|balker|el abogado|junkyard"
    r"|marked fool|it wasn|swift|winks|progenisis|monofur|yanone|goudy|league spartan|glass tty|comfortaa"
    r"|dustismo|essays|unifur|agave",
    re.IGNORECASE,
)
_MONO = re.compile(
    r"mono|courier|typewriter|code|3270|ocr|hermit|inconsolata|anonymous|hack|cursor|fantasque", re.IGNORECASE
)
_WEIGHTS = re.compile(
    r"\b(?:extra|ultra|semi|demi)?-?\s?(?:thin|hairline|light|book|regular|medium|semibold|demibold|bold|heavy|black|retina"
    r"|condensed|cond|cn|narrow|expanded|extended|wide|caption|display|italic|oblique|roman|variable|std|pro|unhinted"
    r"|no2|no3|classic|half)\b|,.*$",
    re.IGNORECASE,
)
_KIN = (  # the same drawings under several names
    (r"dejavu sans|bitstream vera|verana|hack$", "vera"),
    (r"carlito|lato", "lato"),
    (r"tex gyre heros|nimbus sans|freesans", "nimbus sans"),
    (r"tex gyre termes|nimbus roman|freeserif", "nimbus roman"),
    (r"tex gyre cursor|nimbus mono|freemono", "nimbus mono"),
    (r"liberation sans|arimo", "liberation sans"),
    (r"liberation serif|tinos", "liberation serif"),
    (r"liberation mono|cousine", "liberation mono"),
    (r"open sans|noto sans|droid sans", "open sans"),
    (r"noto serif|droid serif", "noto serif"),
    (r"ibm 3270", "3270"),
    (r"gentium", "gentium"),
    (r"league mono", "league mono"),
    (r"cmu (?:serif|classical|concrete)", "cmu serif"),
    (r"dustismo", "dustismo"),
    (r"eurofurence|unifur|monofur", "eurofurence"),
    (r"anonymous", "anonymous"),
    (r"courier prime", "courier prime"),
    (r"fanwood", "fanwood"),
    (r"cmu typewriter", "cmu typewriter"),
    (r"ocr ?a", "ocr a"),
    (r"opendyslexic", "opendyslexic"),
    (r"stix", "stix"),
    (r"b612", "b612"),
    (r"go(?: mono| medium)?$", "go"),
    (r"linux libertine", "linux libertine"),
    (r"cmu (?:bright|sans)", "cmu sans"),
)


@dataclass(frozen=True, slots=True)
class Face:
    """One font file. `clan` decides its side."""

    path: str
    family: str
    style: str
    clan: str
    kind: Kind

    @property
    def bold(self) -> bool:
        return bool(re.search(r"bold|black|heavy", f"{self.family} {self.style}", re.IGNORECASE))


@dataclass(frozen=True, slots=True)
class Glyph:
    """One character at one size.

    Attributes:
        ink: coverage 0..255, (h, w); empty for spaces.
        left, top: of the ink's box from the pen on the baseline, in pixels, y down (top is negative above it).
        advance: of the pen, in pixels.
    """

    ink: np.ndarray
    left: int
    top: int
    advance: float


_NOTHING = np.zeros((0, 0), np.uint8)


class SizedFace:
    """A face at one size in pixels per em, with the glyphs that were asked for."""

    def __init__(self, face: Face, size: int) -> None:
        self.face = face
        self.size = size
        self._glyphs: dict[str, Glyph] = {}

    def glyph(self, char: str) -> Glyph:
        found = self._glyphs.get(char)
        if found is None:
            found = self._glyphs[char] = self._draw(char)
        return found

    def length(self, text: str, tracking: float = 0.0) -> float:
        """Of the pen's way, in pixels."""
        return sum(self.glyph(c).advance + tracking for c in text)

    def _draw(self, char: str) -> Glyph:
        font = _opened(self.face.path, self.size)
        ink, left, top = _rendered(font, char)
        if not ink.size and not char.isspace():  # hinting can lose a thin stroke altogether
            big, left, top = _rendered(_opened(self.face.path, 4 * self.size), char)
            ink, left, top = (_quarter(big) if big.size else big), left // 4, top // 4
        advance = float(font.getlength(char))
        seen = ink > min(40, int(ink.max(initial=0)) // 2)  # a fringe that no eye sees is no part of the box
        rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
        if not len(rows):
            return Glyph(_NOTHING, 0, 0, advance)
        y, x = int(rows[0]), int(columns[0])
        return Glyph(ink[y : rows[-1] + 1, x : columns[-1] + 1].copy(), left + x, top + y, advance)


@lru_cache(maxsize=128)  # an open font takes about 200 KB, and is needed only for glyphs not seen before
def _opened(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _rendered(font: ImageFont.FreeTypeFont, char: str) -> tuple[np.ndarray, int, int]:
    """Ink (h, w) with its left and top from the pen; (0, 0) where there is none at all."""
    mask, (left, top) = font.getmask2(char, "L", anchor="ls")
    width, height = mask.size
    ink = np.frombuffer(bytes(mask), np.uint8).reshape(height, width)
    return (ink if ink.any() else _NOTHING), int(left), int(top)


def _quarter(ink: np.ndarray) -> np.ndarray:
    """A quarter of the size, darkest pixel of each 4 x 4."""
    height, width = ink.shape
    padded = np.zeros((-(-height // 4) * 4, -(-width // 4) * 4), np.uint8)
    padded[:height, :width] = ink
    return padded.reshape(padded.shape[0] // 4, 4, -1, 4).max((1, 3))


@lru_cache(maxsize=4096)  # about 20 KB each when its letters are in use
def sized(face: Face, size: int) -> SizedFace:
    return SizedFace(face, size)


# --------------------------------------------------------------------------------------- choosing


def pick_face(
    rng: random.Random, side: Side, kinds: Collection[Kind] = ("plain", "mono", "fancy"), text: str = ""
) -> Face:
    """A face of a side that has the characters of `text`: any clan of these kinds is as likely as any other (fancy
    ones a third of that), and within a clan any face. Of kinds that the side lacks here any other kind will do.

    Raises InvalidParams if the side has no such fonts on this machine.
    """
    clans = _clans(side, frozenset(kinds)) or _clans(side, frozenset(("plain", "mono", "fancy")))
    for _ in range(300):
        if not clans:
            break
        _, faces = clans[int(rng.random() * len(clans))]
        face = faces[int(rng.random() * len(faces))]
        if (face.kind != "fancy" or rng.random() < 0.35) and readable(face) and covers(face, text):
            return face
    raise InvalidParams(f"no fonts for the {side} side here: install some (scripts/training_packages.sh)")


@lru_cache(maxsize=1024)
def bolder(face: Face) -> Face | None:
    """A bold upright face of the same family; None if there is none or the face is bold already."""
    if face.bold:
        return None
    same = (f for f in all_faces() if f.clan == face.clan and f.family.split()[:2] == face.family.split()[:2])
    return next(
        (f for f in same if re.fullmatch(r"(semi|demi|extra)?bold", f.style, re.IGNORECASE) and readable(f)), None
    )


@lru_cache(maxsize=16)
def _clans(side: Side, kinds: frozenset[Kind]) -> tuple[tuple[str, tuple[Face, ...]], ...]:
    found: dict[str, list[Face]] = {}
    for face in all_faces():
        if face.kind in kinds and side_of("font", face.clan) == side:
            found.setdefault(face.clan, []).append(face)
    # A few faces of a large family do: every face that is used keeps its glyphs in memory.
    return tuple((clan, _few(faces)) for clan, faces in sorted(found.items()))


def _few(faces: list[Face]) -> tuple[Face, ...]:
    """At most MOST_OF_A_CLAN faces, always the same ones of the same list."""
    return tuple(sorted(faces, key=lambda f: zlib.crc32(f"{f.family}/{f.style}".encode()))[:MOST_OF_A_CLAN])


@lru_cache(maxsize=1)
def all_faces() -> tuple[Face, ...]:
    """Every face for text on this machine, by family, style and path; opened once (about 0.2 ms each)."""
    found: dict[tuple[str, str], Face] = {}
    for path in font_files():
        try:
            family, style = ImageFont.truetype(path, 16, layout_engine=ImageFont.Layout.BASIC).getname()
        except OSError:
            continue
        family, style = family or "", style or ""
        if family and not _NOT_TEXT.search(f"{family} {style}"):
            found.setdefault((family, style), Face(path, family, style, clan_of(family), _kind(family)))
    return tuple(found[key] for key in sorted(found))


def clan_of(family: str) -> str:
    """ "Lato Semibold" and "Carlito" are "lato"."""
    name = re.sub(r"[^a-z0-9 ]+", " ", family.lower()).strip()
    for pattern, clan in _KIN:
        if re.match(pattern, name):
            return clan
    return " ".join(_WEIGHTS.sub(" ", name).split()) or name


def _kind(family: str) -> Kind:
    if _FANCY.search(family):
        return "fancy"
    return "mono" if _MONO.search(family) else "plain"


@lru_cache(maxsize=4096)
def readable(face: Face) -> bool:
    """Whether it has the usual characters (signs can be blank), and small letters that are not capitals."""
    if not has_letters(face.path, NEEDED):
        return False
    font = sized(face, 24)
    if font.glyph(" ").ink.size:  # negative letters in black boxes
        return False
    if not all(font.glyph(c).ink.size for c in NEEDED if not c.isalnum()):
        return False
    return all(font.glyph(c).ink.tobytes() not in (b"", font.glyph(c.upper()).ink.tobytes()) for c in "aeghr")


def covers(face: Face, text: str) -> bool:
    """Whether a readable face has all these characters, with ink."""
    return all(c in _USUAL or _has(face, c) for c in set(text))


@lru_cache(maxsize=1 << 16)
def _has(face: Face, char: str) -> bool:
    return has_letters(face.path, char) and sized(face, 24).glyph(char).ink.size > 0
