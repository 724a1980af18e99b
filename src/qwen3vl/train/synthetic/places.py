"""What lies where in a picture, told for every merged token: the truth that a tower can learn to see from alone.

A merged token sees 32 x 32 pixels. Of each of its eight columns of 4 pixels it is told which characters have their
centres there, the first from the top and the second; of its four patches, which thing covers them, in which colour, and
where that thing's edges are; of itself, where in the picture it lies.

    "Hi" over "." in 32 x 32, centres at x = 9, 21 and 22:      0 0 H 0 0 i 0 0      9 // 4 = 2
                                                                0 0 0 0 0 . 0 0     21 // 4 = 22 // 4 = 5

Shape names: M merged tokens, row by row; S slots of a token: first the upper ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from qwen3vl.train.synthetic.arrange import Thing, compose, draw_names, draw_theme
from qwen3vl.train.synthetic.icons import NAMES
from qwen3vl.train.synthetic.lines import LINES, TOKEN, GlyphLine, LineKind, glyph_block, glyph_line
from qwen3vl.train.synthetic.palette import COLOUR_NAMES
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.scenes import draw_spec
from qwen3vl.train.synthetic.sides import rng_of

CHARACTERS = "".join(map(chr, range(33, 127))) + "€£°·–—’“”"
PATCH = TOKEN // 2
SLOTS, COLUMNS = 2, 8  # characters of a column that are told; of a merged token
COVERED = 1 / 3  # of a patch
PARTS = 32  # that a side of the picture is cut into to say where something is
NOTHING, IGNORED = 0, -100  # classes; those of characters, kinds and colours begin at 1
LINE_KINDS = (  # with their shares: easier on the whole than the tasks' own
    (LineKind(4, (TOKEN,), 96, 0.3, 110, 0.0, plain=0.7, dark=0.2), 0.15),
    (LineKind(14, (TOKEN,), 224, 0.4, 100, 0.03, plain=0.7, dark=0.2), 0.25),
    (LineKind(28, (TOKEN,), 320, 0.5, 90, 0.05, plain=0.7, dark=0.2), 0.55),
    (LINES["read_line_hard"], 0.05),
)
SCENES, BLOCKS = 0.2, 0.2  # of all pictures; a block is as large as three lines
_CHARACTER = {character: i for i, character in enumerate(CHARACTERS, start=1)}
_KIND = {name: i for i, name in enumerate(NAMES, start=1)}
_COLOUR = {name: i for i, name in enumerate(COLOUR_NAMES, start=1)}


@dataclass(frozen=True, slots=True)
class Places:
    """A picture and its truth; int16 classes, IGNORED where nothing is told.

    Attributes:
        picture: uint8 (H, W, 3), sides multiples of 32.
        characters_MS: (M, 16).
        kinds_M4, colours_M4: of the patches, in the order of the tower.
        edges_ME: left, top, right and bottom of the thing on each of the four patches: 16 of 1 .. PARTS.
        middles_M2: column and row of the token's own middle, 1 .. PARTS.
    """

    picture: np.ndarray
    characters_MS: np.ndarray
    kinds_M4: np.ndarray
    colours_M4: np.ndarray
    edges_ME: np.ndarray
    middles_M2: np.ndarray

    @property
    def num_tokens(self) -> int:
        return len(self.characters_MS)

    @property
    def tokens(self) -> tuple[int, int]:
        """Merged tokens down and across."""
        return self.picture.shape[0] // TOKEN, self.picture.shape[1] // TOKEN


def draw_places(side: Side, seed: int, index: int) -> Places:
    """Sample `index`: a line of text, a block of lines or a scene of things; a pure function of its arguments and the
    fonts there are."""
    rng = rng_of(side, seed, "places", index)
    (draw,) = rng.choices((of_scene, of_block, of_line), (SCENES, BLOCKS, 1 - SCENES - BLOCKS))
    return draw(rng, side)


def shown_again(sample: Places, rng: random.Random) -> Places:
    """The sample as it was not shown before: text in other colours and elsewhere beside the patches, scenes mirrored
    or as they were. What is told goes with what it is told of."""
    if (sample.characters_MS != IGNORED).any():
        return _moved(sample, rng)
    return _mirrored(sample) if rng.random() < 0.5 else sample


def _moved(sample: Places, rng: random.Random) -> Places:
    """Round about by whole columns; of a single line up or down a little; colours exchanged, or dark for light."""
    picture, (down, across) = sample.picture, sample.tokens
    columns = rng.randrange(across * COLUMNS)
    picture = np.roll(picture, columns * (TOKEN // COLUMNS), axis=1)
    if down == 1:
        rows = np.clip(np.arange(TOKEN) + rng.randint(-3, 3), 0, TOKEN - 1)
        picture = picture[rows]
    picture = picture[..., rng.sample(range(3), 3)]
    if rng.random() < 0.3:
        picture = 255 - picture
    slots = np.roll(_in_columns(sample.characters_MS, (down, across)), columns, axis=1)
    return replace(sample, picture=np.ascontiguousarray(picture), characters_MS=_by_token(slots))


def _mirrored(sample: Places) -> Places:
    def turned(values: np.ndarray) -> np.ndarray:
        """Of the patches of all tokens."""
        grid = values.reshape(*sample.tokens, 2, 2, -1)
        return grid[:, ::-1, :, ::-1].reshape(values.shape)

    edges_M44 = turned(sample.edges_ME).reshape(-1, 4, 4)
    far = np.where(edges_M44 == IGNORED, IGNORED, PARTS + 1 - edges_M44)
    edges_M44 = np.stack([far[..., 2], edges_M44[..., 1], far[..., 0], edges_M44[..., 3]], axis=2)
    return replace(
        sample,
        picture=np.ascontiguousarray(sample.picture[:, ::-1]),
        kinds_M4=turned(sample.kinds_M4),
        colours_M4=turned(sample.colours_M4),
        edges_ME=edges_M44.reshape(-1, 16).astype(np.int16),
    )


def of_line(rng: random.Random, side: Side) -> Places:
    (kind,) = rng.choices([kind for kind, _ in LINE_KINDS], [share for _, share in LINE_KINDS])
    return _of_text(glyph_line(rng, side, kind))


def of_block(rng: random.Random, side: Side) -> Places:
    """Lines anywhere in 2 x 2 to 6 x 6 merged tokens."""
    size = TOKEN * rng.randint(2, 6), TOKEN * rng.randint(2, 6)
    return _of_text(glyph_block(rng, side, size))


def _of_text(line: GlyphLine) -> Places:
    picture = np.asarray(line.picture.convert("RGB"))
    tokens = (picture.shape[0] // TOKEN, picture.shape[1] // TOKEN)
    untold = np.full((tokens[0] * tokens[1], 16), IGNORED, np.int16)
    characters_MS = characters_at("".join(line.text.split()), line.boxes, tokens)
    return Places(picture, characters_MS, untold[:, :4], untold[:, :4], untold, middles_at(tokens))


def of_scene(rng: random.Random, side: Side) -> Places:
    """A few things in a picture of 2 x 2 to 6 x 6 merged tokens."""
    count = rng.choice((1, 1, 2, 3, 5, 8))
    theme, clear = draw_theme(rng, side)
    names, colours = draw_names(rng, min(count, 4)), rng.sample(clear, min(len(clear), 4))
    size = tuple(TOKEN * rng.randint(2 + (count > 3), 3 + count // 2) for _ in range(2))
    scene = compose(rng, side, [draw_spec(rng, names, colours) for _ in range(count)], (size[0], size[1]), theme)
    tokens = (size[1] // TOKEN, size[0] // TOKEN)
    kinds_M4, colours_M4, edges_ME = things_at(scene.things, tokens)
    untold = np.full((len(kinds_M4), SLOTS * COLUMNS), IGNORED, np.int16)
    picture = np.asarray(scene.picture.convert("RGB"))
    return Places(picture, untold, kinds_M4, colours_M4, edges_ME, middles_at(tokens))


def characters_at(text: str, boxes: np.ndarray, tokens: tuple[int, int]) -> np.ndarray:
    """-> classes (M, 16) of characters with these boxes (pixels), in a picture of so many tokens (down, across).

    A character that is not in CHARACTERS leaves its slot untold. Centres that a tilt moved outside count at the edge.
    """
    height, width = tokens[0] * TOKEN, tokens[1] * TOKEN
    slots = np.zeros((tokens[0], tokens[1] * COLUMNS, SLOTS), np.int16)
    middles = np.clip((boxes[:, :2] + boxes[:, 2:]) / 2, 0, (width - 1, height - 1)).astype(int)
    for at in np.argsort(middles[:, 1], kind="stable"):
        x, y = middles[at]
        column = slots[y // TOKEN, x * COLUMNS // TOKEN]
        free = np.flatnonzero(column == NOTHING)[:1]
        column[free] = _CHARACTER.get(text[at], IGNORED)
    return _by_token(slots)


def _by_token(slots: np.ndarray) -> np.ndarray:
    """(tokens down, columns of the whole picture, SLOTS) -> (M, 16)"""
    by_token = slots.reshape(len(slots), -1, COLUMNS, SLOTS).swapaxes(2, 3)
    return by_token.reshape(-1, SLOTS * COLUMNS)


def _in_columns(characters_MS: np.ndarray, tokens: tuple[int, int]) -> np.ndarray:
    """What `_by_token` came from."""
    return characters_MS.reshape(*tokens, SLOTS, COLUMNS).swapaxes(2, 3).reshape(tokens[0], -1, SLOTS)


def middles_at(tokens: tuple[int, int]) -> np.ndarray:
    """-> (M, 2): column and row. The second of 2 tokens along a side has its middle at 48 of 64: part 24, class 25."""
    down, across = (_parts((np.arange(number) + 0.5) / number) for number in tokens)
    return np.stack([np.tile(across, tokens[0]), np.repeat(down, tokens[1])], axis=1)


def things_at(things: Iterable[Thing], tokens: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> kinds (M, 4), colours (M, 4) and edges (M, 16) of patches that the box of a thing covers to a third; of two
    things, the smaller one's. Edges are not told where there is nothing.

    A thing that covers a third of none is told at the patch that holds most of it.
    """
    down, across = tokens[0] * 2, tokens[1] * 2
    grid = np.zeros((6, down, across), np.int16)
    grid[2:] = IGNORED
    for thing in sorted(things, key=lambda thing: -thing.area):
        x1, y1, x2, y2 = thing.box
        share = np.outer(_shares(y1, y2, down), _shares(x1, x2, across))
        told = share >= min(COVERED, share.max())
        edges = _parts(np.array(thing.box) / (PATCH * np.array((across, down, across, down))))
        grid[:, told] = np.array([_KIND[thing.name], _COLOUR[thing.colour], *edges])[:, None]
    patches = grid.reshape(6, tokens[0], 2, tokens[1], 2).swapaxes(2, 3).reshape(6, -1, 4)
    return patches[0], patches[1], patches[2:].transpose(1, 2, 0).reshape(-1, 16)


def _parts(share: np.ndarray) -> np.ndarray:
    """Classes 1 .. PARTS of places along a side, 0 .. 1."""
    return (1 + np.clip(share * PARTS, 0, PARTS - 1)).astype(np.int16)


def _shares(start: float, end: float, patches: int) -> np.ndarray:
    """How much of each patch along a side lies in start..end. 8..40 of 3 patches: 0.5, 1, 0.5."""
    first = PATCH * np.arange(patches)
    return np.clip(np.minimum(end, first + PATCH) - np.maximum(start, first), 0, None) / PATCH
