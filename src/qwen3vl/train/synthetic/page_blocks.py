"""Pieces of web pages as HTML; what can be clicked carries data-t="kind|name"."""

from __future__ import annotations

import base64
import html
import io
import random
from collections.abc import Sequence
from functools import lru_cache

from qwen3vl.train.synthetic import interface_words as texts
from qwen3vl.train.synthetic.icons import ICONS
from qwen3vl.train.synthetic.interface_words import Names
from qwen3vl.train.synthetic.page_style import PageStyle
from qwen3vl.train.synthetic.palette import Rgb
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.shapes import Style, draw_tile
from qwen3vl.train.synthetic.words import price, word


class Blocks:
    """Draws pieces with names that do not repeat on the page."""

    def __init__(self, rng: random.Random, side: Side, style: PageStyle) -> None:
        self.rng, self.side, self.style = rng, side, style
        self.names = Names(rng, side)
        self._icons = rng.sample(tuple(ICONS), len(ICONS))

    # ------------------------------------------------------------------------------------- small

    def text(self, count: int) -> str:
        """A sentence of dictionary words."""
        words = " ".join(word(self.rng, self.side).lower() for _ in range(count))
        return html.escape(words[:1].upper() + words[1:]) + "."

    def button(self, name: str = "", main: bool = True) -> str:
        name = name or self.names.one(texts.VERBS)
        return f'<button class="b{"" if main else " q"}" {mark("button", name)}>{html.escape(name)}</button>'

    def link(self, name: str = "", style: str = "") -> str:
        name = name or self.names.one(texts.PLACES)
        return f'<a style="{style}" {mark("link", name)}>{html.escape(name)}</a>'

    def tab(self, name: str, on: bool) -> str:
        return f'<span class="t{" on" * on}" {mark("tab", name)}>{html.escape(name)}</span>'

    def field(self, name: str, hint: bool = False, kind: str = "field", focus: bool = False) -> str:
        """A box to type into; its name is written in it as a hint, or stands elsewhere."""
        if self.style.native:
            return self._own_field(name, hint, kind, focus)
        value = html.escape(name) if hint else html.escape(self._value()) if self.rng.random() < 0.3 else "&nbsp;"
        inner = "|" if focus else f'<span class="{"hint" * hint}">{value}</span>'
        arrow = '<span style="float:right">▾</span>' if kind == "drop-down" else ""
        return f'<div class="f{" focus" * focus}" {mark("focused field" if focus else kind, name)}>{inner}{arrow}</div>'

    def _own_field(self, name: str, hint: bool, kind: str, focus: bool) -> str:
        """The browser's."""
        value = html.escape(self._value()) if not hint and self.rng.random() < 0.3 else ""
        if kind == "drop-down":
            chosen = html.escape(name) if hint else value
            return f'<select class="f" {mark(kind, name)}><option>{chosen}</option></select>'
        shown = 'value="|"' if focus else f'placeholder="{html.escape(name)}"' if hint else f'value="{value}"'
        return f'<input class="f{" focus" * focus}" {shown} {mark("focused field" if focus else kind, name)}>'

    def _value(self) -> str:
        return self.names.one(texts.FIELDS, 1.0)

    def icon(self, size: int, colour: Rgb | None = None) -> tuple[str, str]:
        """The name of an icon that is not on the page yet, and its picture."""
        name = self._icons.pop()
        data = icon_data(name, colour or self.style.accent, size)
        return name, f'<img src="{data}" style="max-width:{size}px">'

    def icon_button(self, size: int) -> str:
        name, picture = self.icon(size, self.style.ink)
        return f'<button class="b q" {mark("icon", name)}>{picture}</button>'

    def tick(self, name: str, kind: str) -> str:
        on = self.rng.random() < 0.35
        if self.style.native:
            form = "radio" if kind == "radio button" else "checkbox"
            box = f'<input type="{form}" class="k" {"checked" * on} {mark(kind, name)}>'
            return f'<div class="r">{box}<span>{html.escape(name)}</span></div>'
        inner = ("✓" if kind == "check box" else "") if on else ""
        shape = " o" if kind == "radio button" else ""
        return (
            f'<div class="r"><span class="k{shape}{" on" * on}" {mark(kind, name)}>{inner}</span>'
            f"<span>{html.escape(name)}</span></div>"
        )

    def switch(self, name: str) -> str:
        on = self.rng.random() < 0.5
        return f'<span class="s{" on" * on}" {mark("switch", name)}><i></i></span>'

    # ----------------------------------------------------------------------------------- larger

    def row(self, pieces: Sequence[str], style: str = "") -> str:
        return f'<div class="r" style="{style}">{"".join(pieces)}</div>'

    def column(self, pieces: Sequence[str], style: str = "") -> str:
        return f'<div class="c" style="{style}">{"".join(pieces)}</div>'

    def panel(self, pieces: Sequence[str], style: str = "") -> str:
        return f'<div class="p" style="{style}">{"".join(pieces)}</div>'

    def bar(self) -> str:
        """The head of a page: a name, links, perhaps a search field or a button."""
        rng = self.rng
        logo = f"<b>{html.escape(self.names.one(texts.PLACES, 1.0))}</b>"
        links = [self.link() for _ in range(rng.randint(2, 5))]
        search = f'<div style="width:25%">{self.field(self.names.one("Search|Find", 0.1), hint=True)}</div>'
        more = [rng.choice((search, self.button(main=False), ""))]
        spread = ['<span class="g"></span>']
        pieces = [logo, *spread, *links, *more] if rng.random() < 0.5 else [logo, *links, *spread, *more]
        return f'<div class="bar">{"".join(pieces)}</div>'

    def banner(self) -> str:
        """A tall strip with large text."""
        tall = self.rng.randint(4, 12) * self.style.size
        colour = f"rgb{self.rng.choice((self.style.accent, self.style.surface))}"
        words = html.escape(self.names.one(texts.PLACES, 1.0))
        return f'<div style="height:{tall}px;background:{colour};padding:12px"><h1>{words}</h1></div>'

    def footer(self) -> str:
        """A strip at the lower end of the window."""
        links = "".join(self.link() for _ in range(self.rng.randint(2, 5)))
        return f'<div class="bar" style="position:absolute;left:0;right:0;bottom:0">{links}</div>'

    def side_menu(self) -> str:
        wide = "" if self.rng.random() < 0.3 else ";width:fit-content"
        links = [self.link(style=f"display:block;padding:3px{wide}") for _ in range(self.rng.randint(4, 9))]
        return self.panel([f"<h3>{html.escape(self.names.one(texts.PLACES))}</h3>", *links], "width:28%;flex:none")

    def form(self, count: int, focus: bool = False) -> str:
        """Fields with labels above, beside or inside; some drop-downs and check boxes; one or two buttons."""
        rng = self.rng
        place = rng.choice(("above", "beside", "inside"))
        at = rng.randrange(count) if focus else -1
        rows = []
        for number in range(count):
            name = self.names.one(texts.FIELDS)
            kind = "drop-down" if number != at and rng.random() < 0.2 else "field"
            field = self.field(name, place == "inside" and number != at, kind, number == at)
            label = html.escape(name)
            if place == "inside" and number != at:
                rows.append(f"<div>{field}</div>")
            elif place == "beside":
                rows.append(f'<div class="r"><span style="width:40%">{label}</span><div class="g">{field}</div></div>')
            else:
                rows.append(f"<div><div>{label}</div>{field}</div>")
        if rng.random() < 0.4:
            rows.append(self.tick(self.names.one(texts.OPTIONS), "check box"))
        buttons = [self.button(), *([self.button(main=False)] if rng.random() < 0.5 else [])]
        return self.column([*rows, self.row(buttons, f"justify-content:{rng.choice(('start', 'end', 'center'))}")])

    def table(self, rows: int) -> str:
        """Names with numbers, and a button or link in each row; each number is a fact."""
        rng = self.rng
        heads = [self.names.one(texts.FIELDS) for _ in range(3)]
        lines = []
        for _ in range(rows):
            name, value = self.names.one(texts.PLACES, 0.9), price(rng)
            fact = mark("fact", f"What is the {heads[1]} of {name}?={value}")
            action = self.button(main=False) if rng.random() < 0.5 else self.link(self.names.one(texts.VERBS))
            lines.append(f"<tr><td>{html.escape(name)}<td {fact}>{html.escape(value)}<td>{action}</tr>")
        head = "".join(f"<th>{html.escape(h)}" for h in heads)
        return f"<table><tr>{head}</tr>{''.join(lines)}</table>"

    def card(self, size: int) -> str:
        """A product: picture, name as a link, price, button."""
        name, picture = self.icon(size)
        title, value = self.names.one(texts.PLACES, 0.9), price(self.rng)
        fact = mark("fact", f"What does {title} cost?={value}")
        shown = f'<div style="text-align:center" {mark("icon", name)}>{picture}</div>'
        said = [f"<div>{self.link(title)}</div>", f"<div {fact}>{html.escape(value)}</div>"]
        return self.panel([shown, *said, self.button()], "flex:1;min-width:0")

    def tabs(self) -> str:
        names = [self.names.one(texts.PLACES) for _ in range(self.rng.randint(3, 5))]
        on = self.rng.randrange(len(names))
        return self.row([self.tab(name, i == on) for i, name in enumerate(names)])

    def dialog(self) -> str:
        """A window over the page; nothing below it can be clicked."""
        rng = self.rng
        buttons = [self.button(main=i == 0) for i in range(rng.randint(1, 3))]
        place = rng.choice(("start", "end", "center"))
        body = [f"<h2>{html.escape(self.names.one(texts.PLACES))}</h2>", f"<p>{self.text(rng.randint(4, 10))}</p>"]
        if rng.random() < 0.3:
            body.append(f"<p>{self.field(self.names.one(texts.FIELDS), hint=True)}</p>")
        body.append(self.row(buttons, f"justify-content:{place};flex-wrap:wrap"))
        return f'<div class="over">{self.panel(body, f"width:{rng.randint(55, 85)}%")}</div>'

    def list_rows(self, count: int) -> str:
        """Rows of a list: an icon, a name, a small text, perhaps a switch or a button."""
        rng = self.rng
        end = rng.choice(("switch", "button", "none", "link"))
        rows = []
        for _ in range(count):
            name = self.names.one(texts.OPTIONS if end == "switch" else texts.PLACES)
            icon, picture = self.icon(round(self.style.size * 1.4))
            last = {"switch": self.switch(name), "button": self.button(main=False), "none": "", "link": self.link()}[
                end
            ]
            title = f"<b {mark('list item', name) if end == 'none' else ''}>{html.escape(name)}</b>"
            first = f"<span {mark('icon', icon)}>{picture}</span>"
            rows.append(self.row([first, title, '<span class="g"></span>', last], "padding:3px"))
        return self.column(rows)


def mark(kind: str, name: str) -> str:
    return f'data-t="{html.escape(kind)}|{html.escape(name)}"'


@lru_cache(maxsize=1024)
def icon_data(name: str, colour: Rgb, size: int) -> str:
    """A picture of an icon as a data: address."""
    sink = io.BytesIO()
    draw_tile(ICONS[name], colour, max(12, size), Style()).save(sink, "PNG")
    return "data:image/png;base64," + base64.b64encode(sink.getvalue()).decode()
