"""Whole web pages: kinds of pages in frames. A layout "kind/frame" belongs to a side."""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from functools import lru_cache

from qwen3vl.train.synthetic import interface_words as texts
from qwen3vl.train.synthetic.browser import Page, Shown, drawn
from qwen3vl.train.synthetic.page_blocks import Blocks, mark
from qwen3vl.train.synthetic.page_style import draw_style
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import combined

Builder = Callable[[random.Random, Side], Page]
FRAMES = ("top", "side", "both", "bare", "centred")
VIEWPORTS = (
    (640, 480), (640, 480), (640, 400), (640, 360), (560, 420), (480, 480), (480, 360), (400, 300), (320, 240),
    (160, 210), (240, 320), (360, 480),
)  # fmt: skip


@lru_cache(maxsize=2)
def layouts(side: Side) -> tuple[str, ...]:
    return combined(side, "page", tuple(KINDS), FRAMES)


def draw_page(rng: random.Random, side: Side) -> Shown:
    """One of the pages of a side, with at least one target."""
    return drawn(rng, side, "web", build)


def build(rng: random.Random, side: Side) -> Page:
    """A page in a layout, a theme, a font, words and a window of that side."""
    viewport = rng.choice(VIEWPORTS)
    style = draw_style(rng, side, rng.randint(9, 12 if viewport[0] < 450 else 16))
    blocks = Blocks(rng, side, style)
    kind, frame = rng.choice(layouts(side)).split("/")
    body = framed(blocks, frame, KINDS[kind](blocks, viewport[0] * viewport[1] / style.size**2 / 60))
    if frame != "centred" and rng.random() < 0.35:
        body = blocks.banner() + body
    if kind != "dialog" and rng.random() < 0.3:
        body += blocks.footer()
    if rng.random() < 0.12:  # as if scrolled down a little
        body = f'<div style="margin-top:-{rng.randint(5, 15) * style.size}px">{body}</div>'
    return Page(document(style.css, body), viewport)


def document(css: str, body: str) -> str:
    return f'<!doctype html><html><head><meta charset="utf-8"><style>{css}</style></head><body>{body}</body></html>'


def framed(blocks: Blocks, frame: str, main: str) -> str:
    pad = blocks.style.size
    if frame == "top":
        return f'{blocks.bar()}<div style="padding:{pad}px">{main}</div>'
    if frame in ("side", "both"):
        content = f'<div class="g" style="padding:{pad}px">{main}</div>'
        return (blocks.bar() if frame == "both" else "") + blocks.row(
            [blocks.side_menu(), content], "align-items:start"
        )
    if frame == "centred":
        panel = blocks.panel([main], f"width:{blocks.rng.randint(60, 85)}%")
        return blocks.row([panel], "height:100%;justify-content:center")
    return f'<div style="padding:{pad}px">{main}</div>'


def _heading(blocks: Blocks, level: int = 1) -> str:
    return f"<h{level}>{html.escape(blocks.names.one(texts.PLACES))}</h{level}>"


def _some(b: Blocks, low: int, high: int, room: float) -> int:
    """As many as there is room for, at least `low` and at most `high`."""
    return b.rng.randint(low, max(low, min(high, int(room))))


def _wrapped(cells: list[str]) -> str:
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px;padding:8px 0">{"".join(cells)}</div>'


def _article(b: Blocks, room: float) -> str:
    """Text with links in it."""
    paragraphs = [
        f"<p>{b.text(b.rng.randint(4, 12))} {b.link()} {b.text(b.rng.randint(3, 10))}</p>"
        for _ in range(_some(b, 2, 6, room / 4))
    ]
    return _heading(b) + "".join(paragraphs) + b.row([b.button(), b.button(main=False)])


def _form(b: Blocks, room: float) -> str:
    return _heading(b, 2) + b.form(_some(b, 2, 7, room / 6), focus=b.rng.random() < 0.35)


def _login(b: Blocks, room: float) -> str:
    links = b.row([b.link(), b.link()], "justify-content:space-between")
    return b.panel([_heading(b, 2), b.form(2, focus=b.rng.random() < 0.35), links], "max-width:300px;margin:auto")


def _table(b: Blocks, room: float) -> str:
    head = b.row([_heading(b, 2), '<span class="g"></span>', b.button()])
    return head + b.table(_some(b, 2, 8, room / 5))


def _shop(b: Blocks, room: float) -> str:
    cards = [b.card(b.rng.randint(24, 56)) for _ in range(b.rng.randint(2, 4))]
    return _heading(b, 2) + b.row(cards, "align-items:stretch")


def _settings(b: Blocks, room: float) -> str:
    kind = b.rng.choice(("check box", "radio button"))
    options = [b.tick(b.names.one(texts.OPTIONS), kind) for _ in range(_some(b, 3, 9, room / 5))]
    return _heading(b, 2) + b.tabs() + b.column(options, "padding:6px 0") + b.row([b.button(), b.button(main=False)])


def _list(b: Blocks, room: float) -> str:
    return _heading(b, 2) + b.list_rows(_some(b, 3, 9, room / 5))


def _mail(b: Blocks, room: float) -> str:
    """Tools on top, then rows with a check box each."""
    tools = b.row([b.icon_button(b.style.size + 3) for _ in range(b.rng.randint(3, 6))])
    rows = []
    for _ in range(_some(b, 3, 9, room / 5)):
        name = b.names.one(texts.PLACES, 0.8)
        box = f'<span class="k" {mark("check box", name)}></span>'
        rows.append(b.row([box, b.link(name), f"<span class=hint>{b.text(2)}</span>"], "white-space:nowrap"))
    return tools + b.column(rows, "padding-top:6px")


def _files(b: Blocks, room: float) -> str:
    """Icons with names below, as in a file manager."""
    cells = []
    size = b.rng.randint(24, 48)
    for _ in range(b.rng.randint(4, 12)):
        _, picture = b.icon(size)
        name = b.names.one(texts.PLACES, 0.6)
        inner = f"{picture}<div>{html.escape(name)}</div>"
        cells.append(f'<div style="width:{size * 2 + 24}px;text-align:center" {mark("file", name)}>{inner}</div>')
    return b.row([b.icon_button(b.style.size + 3) for _ in range(3)]) + _wrapped(cells)


def _dialog(b: Blocks, room: float) -> str:
    return _heading(b) + f"<p>{b.text(12)}</p>" + b.button() + b.dialog()


def _calendar(b: Blocks, room: float) -> str:
    first, days = b.rng.randrange(7), b.rng.choice((28, 30, 31))
    cells = [""] * first + [str(d) for d in range(1, days + 1)]
    lines = ["".join(f"<th>{d}" for d in ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"))]
    for week in range(0, len(cells), 7):
        row = cells[week : week + 7]
        lines.append("".join(f"<td {mark('day', d)}>{d}" if d else "<td>" for d in row))
    head = b.row([b.button("‹", False), f"<b>{html.escape(b.names.one(texts.PLACES))}</b>", b.button("›", False)])
    return head + "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _calculator(b: Blocks, room: float) -> str:
    keys = list("789/456*123-0.=+")
    size = b.rng.randint(24, 40)
    form = f"width:{size}px;height:{size - 4}px;padding:0"
    cells = [f'<button class="b q" style="{form}" {mark("key", k)}>{k}</button>' for k in keys]
    rows = [b.row(cells[i : i + 4]) for i in range(0, 16, 4)]
    return b.panel([b.field("display"), *rows], f"width:{size * 4 + 60}px;margin:auto")


def _wizard(b: Blocks, room: float) -> str:
    steps = b.row([f"<span class=t>{i}. {html.escape(b.names.one(texts.PLACES))}</span>" for i in range(1, 4)])
    buttons = b.row([b.button(main=False), '<span class="g"></span>', b.button()])
    return steps + b.form(b.rng.randint(1, 3)) + f"<hr>{buttons}"


def _gallery(b: Blocks, room: float) -> str:
    size = b.rng.randint(30, 60)
    cells = [b.icon(size) for _ in range(b.rng.randint(4, 14))]
    tiles = [f'<div class="p" {mark("icon", name)}>{picture}</div>' for name, picture in cells]
    return b.tabs() + _wrapped(tiles) + b.row([b.button(), b.button(main=False)])


def _results(b: Blocks, room: float) -> str:
    """A search field and what was found; numbers of further pages."""
    field = b.field(b.names.one("Search|Find|Query|Keyword", 0.1), hint=True)
    search = b.row([f'<div class="g">{field}</div>', b.button()])
    found = [
        f"<div>{b.link()}<div class=hint>{b.text(b.rng.randint(3, 8))}</div></div>"
        for _ in range(_some(b, 2, 5, room / 7))
    ]
    last = b.rng.randint(4, 8)
    numbers = b.row([f'<span class="m" {mark("page number", str(n))}>{n}</span>' for n in range(1, last)])
    return search + b.column(found, "padding:8px 0") + numbers


KINDS: dict[str, Callable[[Blocks, float], str]] = {
    "article": _article, "form": _form, "login": _login, "table": _table, "shop": _shop, "settings": _settings,
    "list": _list, "mail": _mail, "files": _files, "dialog": _dialog, "calendar": _calendar,
    "calculator": _calculator, "wizard": _wizard, "gallery": _gallery, "results": _results,
}  # fmt: skip
