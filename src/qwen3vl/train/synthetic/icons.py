"""Icons of things, in the roles of shapes.Pen: most of each is its "main" colour."""

from __future__ import annotations

from qwen3vl.train.synthetic.shapes import SHAPES, Drawing, Pen, heart_of, ring_of, star_of


def _house(p: Pen) -> None:
    p.rect("main", 0.12, 0.42, 0.88, 1)
    p.poly("dark", (0.5, 0), (1, 0.46), (0, 0.46))
    p.rect("white", 0.24, 0.55, 0.44, 0.75)
    p.rect("dark", 0.56, 0.6, 0.76, 1)


def _tree(p: Pen) -> None:
    p.rect("dark", 0.42, 0.6, 0.58, 1)
    p.poly("main", (0.5, 0), (0.86, 0.48), (0.14, 0.48))
    p.poly("main", (0.5, 0.24), (0.96, 0.8), (0.04, 0.8))


def _car(p: Pen) -> None:
    p.poly("main", (0.22, 0.5), (0.34, 0.22), (0.7, 0.22), (0.84, 0.5))
    p.rect("main", 0, 0.46, 1, 0.74, 0.06)
    p.poly("white", (0.34, 0.46), (0.4, 0.3), (0.52, 0.3), (0.52, 0.46))
    p.poly("white", (0.57, 0.46), (0.57, 0.3), (0.67, 0.3), (0.74, 0.46))
    for x in (0.14, 0.62):
        p.oval("ink", x, 0.62, x + 0.24, 0.86)
        p.oval("light", x + 0.07, 0.69, x + 0.17, 0.79)


def _boat(p: Pen) -> None:
    p.poly("main", (0, 0.66), (1, 0.66), (0.82, 0.96), (0.18, 0.96))
    p.rect("ink", 0.47, 0.02, 0.52, 0.66)
    p.poly("light", (0.55, 0.06), (0.92, 0.6), (0.55, 0.6))
    p.poly("main", (0.44, 0.14), (0.44, 0.6), (0.12, 0.6))


def _fish(p: Pen) -> None:
    p.poly("main", (0.66, 0.5), (1, 0.24), (1, 0.76))
    p.oval("main", 0, 0.24, 0.76, 0.76)
    p.oval("white", 0.14, 0.38, 0.26, 0.5)
    p.oval("ink", 0.17, 0.41, 0.23, 0.47)
    p.arc("dark", 0.03, 0.2, 0.3, 0.46, 0.7, -60, 60)


def _flower(p: Pen) -> None:
    for x, y in ring_of(6, 0.31):
        p.oval("main", x - 0.19, y - 0.19, x + 0.19, y + 0.19)
    p.oval("dark", 0.34, 0.34, 0.66, 0.66)


def _sun(p: Pen) -> None:
    p.poly("main", *star_of(12, 0.3))
    p.oval("main", 0.2, 0.2, 0.8, 0.8)


def _cloud(p: Pen) -> None:
    for box in ((0.0, 0.42, 0.4, 0.82), (0.18, 0.18, 0.62, 0.66), (0.46, 0.3, 0.86, 0.74), (0.64, 0.46, 1, 0.82)):
        p.oval("main", *box)
    p.rect("main", 0.18, 0.6, 0.84, 0.82)


def _apple(p: Pen) -> None:
    p.line("ink", 0.05, (0.5, 0.26), (0.56, 0.02))
    p.oval("main", 0.04, 0.2, 0.6, 0.96)
    p.oval("main", 0.4, 0.2, 0.96, 0.96)
    p.poly("dark", (0.58, 0.16), (0.76, 0.02), (0.84, 0.1), (0.7, 0.2))
    p.oval("light", 0.18, 0.36, 0.3, 0.52)


def _pear(p: Pen) -> None:
    p.line("ink", 0.05, (0.5, 0.14), (0.58, 0))
    p.oval("main", 0.31, 0.08, 0.69, 0.56)
    p.oval("main", 0.16, 0.36, 0.84, 1)
    p.oval("light", 0.3, 0.56, 0.4, 0.7)


def _cherries(p: Pen) -> None:
    p.line("dark", 0.04, (0.24, 0.6), (0.6, 0.04), (0.76, 0.6))
    p.oval("main", 0.02, 0.54, 0.46, 0.98)
    p.oval("main", 0.54, 0.54, 0.98, 0.98)
    p.oval("light", 0.12, 0.62, 0.22, 0.72)


def _mushroom(p: Pen) -> None:
    p.rect("light", 0.36, 0.5, 0.64, 1, 0.1)
    p.pie("main", 0, 0.06, 1, 1.06, 180, 360)
    for x, y in ((0.2, 0.34), (0.46, 0.2), (0.7, 0.36)):
        p.oval("white", x, y, x + 0.14, y + 0.14)


def _face(p: Pen) -> None:
    p.oval("main", 0, 0, 1, 1)
    for x in (0.26, 0.6):
        p.oval("ink", x, 0.28, x + 0.14, 0.46)
    p.arc("ink", 0.06, 0.22, 0.3, 0.78, 0.8, 20, 160)


def _key(p: Pen) -> None:
    p.rect("main", 0.36, 0.44, 1, 0.56)
    p.rect("main", 0.72, 0.5, 0.8, 0.72)
    p.rect("main", 0.88, 0.5, 0.96, 0.76)
    p.oval("main", 0, 0.28, 0.44, 0.72)
    p.hole(0.13, 0.41, 0.31, 0.59)


def _cup(p: Pen) -> None:
    p.arc("main", 0.09, 0.6, 0.28, 1, 0.72, -90, 90)
    p.poly("main", (0, 0.14), (0.78, 0.14), (0.68, 0.88), (0.1, 0.88))
    p.oval("dark", 0, 0.06, 0.78, 0.24)


def _flag(p: Pen) -> None:
    p.rect("ink", 0.08, 0, 0.15, 1)
    p.poly("main", (0.15, 0.04), (0.96, 0.04), (0.8, 0.3), (0.96, 0.56), (0.15, 0.56))


def _umbrella(p: Pen) -> None:
    p.line("ink", 0.05, (0.5, 0.4), (0.5, 0.9))
    p.arc("ink", 0.05, 0.475, 0.8, 0.68, 1, 0, 180)
    p.pie("main", 0, 0.06, 1, 0.96, 180, 360)
    p.line("dark", 0.03, (0.5, 0.06), (0.3, 0.5))
    p.line("dark", 0.03, (0.5, 0.06), (0.7, 0.5))


def _bell(p: Pen) -> None:
    p.oval("dark", 0.4, 0.8, 0.6, 1)
    p.pie("main", 0.2, 0.06, 0.8, 0.86, 180, 360)
    p.poly("main", (0.2, 0.46), (0.8, 0.46), (0.96, 0.84), (0.04, 0.84))


def _book(p: Pen) -> None:
    p.rect("main", 0.1, 0.02, 0.9, 0.98, 0.04)
    p.rect("dark", 0.1, 0.02, 0.24, 0.98)
    p.rect("white", 0.36, 0.18, 0.78, 0.4)


def _clock(p: Pen) -> None:
    p.oval("main", 0, 0, 1, 1)
    p.oval("white", 0.17, 0.17, 0.83, 0.83)
    p.line("ink", 0.06, (0.5, 0.26), (0.5, 0.5), (0.68, 0.6))


def _lock(p: Pen) -> None:
    p.arc("dark", 0.1, 0.24, 0.0, 0.76, 0.7, 180, 360)
    p.rect("main", 0.1, 0.4, 0.9, 1, 0.06)
    p.oval("ink", 0.43, 0.56, 0.57, 0.7)
    p.rect("ink", 0.47, 0.64, 0.53, 0.84)


def _envelope(p: Pen) -> None:
    p.rect("main", 0, 0.16, 1, 0.84)
    p.line("dark", 0.05, (0.02, 0.2), (0.5, 0.56), (0.98, 0.2))


def _leaf(p: Pen) -> None:
    p.poly("main", (0.04, 0.96), (0.06, 0.46), (0.36, 0.12), (0.98, 0.02), (0.9, 0.6), (0.58, 0.9))
    p.line("dark", 0.04, (0.04, 0.96), (0.74, 0.26))


def _drop(p: Pen) -> None:
    p.poly("main", (0.5, 0), (0.79, 0.5), (0.5, 0.8), (0.21, 0.5))
    p.oval("main", 0.16, 0.34, 0.84, 1)
    p.oval("light", 0.3, 0.58, 0.42, 0.78)


def _bolt(p: Pen) -> None:
    p.poly("main", (0.56, 0), (0.12, 0.58), (0.46, 0.58), (0.34, 1), (0.88, 0.36), (0.52, 0.36), (0.74, 0))


def _crown(p: Pen) -> None:
    p.poly("main", (0, 0.16), (0.26, 0.5), (0.5, 0.04), (0.74, 0.5), (1, 0.16), (0.9, 0.92), (0.1, 0.92))
    p.rect("dark", 0.1, 0.76, 0.9, 0.92)


def _cat(p: Pen) -> None:
    p.poly("main", (0.06, 0.5), (0.06, 0), (0.44, 0.28))
    p.poly("main", (0.94, 0.5), (0.94, 0), (0.56, 0.28))
    p.oval("main", 0.02, 0.18, 0.98, 0.98)
    for x in (0.24, 0.6):
        p.oval("white", x, 0.42, x + 0.16, 0.6)
        p.oval("ink", x + 0.05, 0.44, x + 0.11, 0.58)
    p.poly("ink", (0.44, 0.68), (0.56, 0.68), (0.5, 0.76))


def _hat(p: Pen) -> None:
    p.rect("main", 0.22, 0.1, 0.78, 0.8)
    p.oval("main", 0, 0.68, 1, 0.92)
    p.rect("dark", 0.22, 0.54, 0.78, 0.68)


def _bottle(p: Pen) -> None:
    p.rect("dark", 0.41, 0, 0.59, 0.1)
    p.rect("main", 0.42, 0.08, 0.58, 0.4)
    p.rect("main", 0.26, 0.32, 0.74, 1, 0.1)
    p.rect("light", 0.26, 0.54, 0.74, 0.78)


def _candle(p: Pen) -> None:
    p.oval("light", 0.41, 0.0, 0.59, 0.26)
    p.rect("ink", 0.48, 0.22, 0.52, 0.34)
    p.rect("main", 0.32, 0.32, 0.68, 1)


def _tent(p: Pen) -> None:
    p.poly("main", (0.5, 0.06), (1, 0.94), (0, 0.94))
    p.poly("ink", (0.5, 0.4), (0.7, 0.94), (0.3, 0.94))


def _rocket(p: Pen) -> None:
    p.poly("dark", (0.3, 0.6), (0.08, 0.86), (0.3, 0.84))
    p.poly("dark", (0.7, 0.6), (0.92, 0.86), (0.7, 0.84))
    p.poly("main", (0.5, 0), (0.7, 0.3), (0.7, 0.86), (0.3, 0.86), (0.3, 0.3))
    p.oval("white", 0.4, 0.34, 0.6, 0.54)
    p.poly("light", (0.4, 0.86), (0.6, 0.86), (0.5, 1))


def _balloon(p: Pen) -> None:
    p.line("ink", 0.03, (0.5, 0.72), (0.44, 0.86), (0.52, 1))
    p.oval("main", 0.18, 0, 0.82, 0.74)
    p.oval("light", 0.3, 0.14, 0.42, 0.32)


def _lamp(p: Pen) -> None:
    p.rect("dark", 0.46, 0.4, 0.54, 0.92)
    p.rect("dark", 0.24, 0.9, 0.76, 1)
    p.poly("main", (0.3, 0), (0.7, 0), (0.96, 0.52), (0.04, 0.52))


def _gift(p: Pen) -> None:
    for x in (0.22, 0.5):
        p.oval("dark", x, 0, x + 0.28, 0.24)
    p.rect("main", 0.08, 0.22, 0.92, 1)
    p.rect("dark", 0.43, 0.22, 0.57, 1)


def _gear(p: Pen) -> None:
    teeth = zip(*(ring_of(8, r, t) for r, t in ((0.37, -14), (0.5, -8), (0.5, 8), (0.37, 14))), strict=True)
    p.poly("main", *[corner for tooth in teeth for corner in tooth])
    p.oval("main", 0.13, 0.13, 0.87, 0.87)
    p.hole(0.34, 0.34, 0.66, 0.66)


def _bird(p: Pen) -> None:
    p.poly("main", (0.56, 0.6), (1, 0.4), (0.94, 0.66))
    p.oval("main", 0.14, 0.34, 0.8, 0.88)
    p.oval("main", 0.06, 0.1, 0.5, 0.54)
    p.poly("dark", (0.08, 0.26), (0.08, 0.42), (-0.0, 0.36))
    p.oval("ink", 0.19, 0.24, 0.27, 0.32)
    p.pie("dark", 0.34, 0.38, 0.72, 0.76, 0, 180)


def _ladder(p: Pen) -> None:
    for x in (0.2, 0.7):
        p.rect("main", x, 0, x + 0.1, 1)
    for y in (0.12, 0.34, 0.56, 0.78):
        p.rect("main", 0.2, y, 0.8, y + 0.09)


def _cake(p: Pen) -> None:
    p.rect("dark", 0.47, 0.1, 0.53, 0.4)
    p.oval("light", 0.45, 0, 0.55, 0.16)
    p.rect("main", 0.06, 0.38, 0.94, 0.94, 0.05)
    p.rect("light", 0.06, 0.58, 0.94, 0.68)


def _snowman(p: Pen) -> None:
    p.oval("main", 0.16, 0.42, 0.84, 1)
    p.oval("main", 0.28, 0.04, 0.72, 0.5)
    for x in (0.38, 0.54):
        p.oval("ink", x, 0.18, x + 0.08, 0.27)
    for y in (0.58, 0.74):
        p.oval("ink", 0.46, y, 0.54, y + 0.08)


def _card(p: Pen) -> None:
    p.rect("main", 0.14, 0, 0.86, 1, 0.06)
    p.poly("white", *[(0.5 + (x - 0.5) * 0.45, 0.5 + (y - 0.5) * 0.45) for x, y in heart_of()])


ICONS: dict[str, Drawing] = {
    "house": _house, "tree": _tree, "car": _car, "boat": _boat, "fish": _fish, "flower": _flower, "sun": _sun,
    "cloud": _cloud, "apple": _apple, "pear": _pear, "pair of cherries": _cherries, "mushroom": _mushroom,
    "face": _face, "key": _key, "cup": _cup, "flag": _flag, "umbrella": _umbrella, "bell": _bell, "book": _book,
    "clock": _clock, "lock": _lock, "envelope": _envelope, "leaf": _leaf, "drop": _drop, "lightning bolt": _bolt,
    "crown": _crown, "cat": _cat, "hat": _hat, "bottle": _bottle, "candle": _candle, "tent": _tent,
    "rocket": _rocket, "balloon": _balloon, "lamp": _lamp, "gift": _gift, "gear": _gear, "bird": _bird,
    "ladder": _ladder, "cake": _cake, "snowman": _snowman, "card": _card,
}  # fmt: skip
DRAWINGS: dict[str, Drawing] = {**SHAPES, **ICONS}
NAMES = tuple(DRAWINGS)
_PLURALS = {"fish": "fish", "leaf": "leaves", "snowman": "snowmen", "pair of cherries": "pairs of cherries",
            "cross": "crosses"}  # fmt: skip


def plural(name: str) -> str:
    """ "leaf" -> "leaves"."""
    return _PLURALS.get(name, name + "s")


def article(words: str) -> str:
    """ "orange hat" -> "an orange hat"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
