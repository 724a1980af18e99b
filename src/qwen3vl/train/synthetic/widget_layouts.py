"""Where widgets stand: forms, tool bars, dialogs, tiles, lists, menus, settings, desktops. Names "layout/place"
belong to sides."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from PIL import Image

from qwen3vl.train.synthetic import interface_words as texts
from qwen3vl.train.synthetic.icons import ICONS
from qwen3vl.train.synthetic.interface_words import Names
from qwen3vl.train.synthetic.palette import mix
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import combined
from qwen3vl.train.synthetic.widgets import Board, draw_widget_theme, readable_on

PLACES = ("left", "middle", "right", "wide")


def draw_board(rng: random.Random, side: Side, high: int = 640) -> Board:
    """A screen with at least two widgets; its longer side is at most `high` pixels."""
    while True:
        width = round(150 * (high / 150) ** rng.random())
        size = (width, max(100, round(width * rng.choice((0.6, 0.75, 0.75, 1.0)))))
        theme = draw_widget_theme(rng, side, rng.randint(9, 13 if width < 360 else 17))
        layout, place = rng.choice(layouts(side)).split("/")
        board = Board(rng, size, theme, Names(rng, side))
        LAYOUTS[layout](board, place)
        kept = [w for w in board.widgets if w.box[2] <= size[0] and w.box[3] <= size[1] and min(w.box) >= 0]
        if len(kept) >= 2 and len(kept) == len(board.widgets):
            _settle(board)
            return board


def _settle(board: Board) -> None:
    """Empty room below is cut off or moved above, so that things stand anywhere on the screen."""
    width, height = board.picture.size
    used = min(height, round(max(w.box[3] for w in board.widgets)) + board.theme.size)
    if height - used < board.theme.size:
        return
    wanted = board.rng.randint(max(used, 64), height)
    down = board.rng.randint(0, wanted - used)
    picture = Image.new("RGB", (width, wanted), board.theme.ground)
    picture.paste(board.picture.crop((0, 0, width, used)), (0, down))
    board.picture = picture
    board.widgets = [replace(w, box=(w.box[0], w.box[1] + down, w.box[2], w.box[3] + down)) for w in board.widgets]


@lru_cache(maxsize=2)
def layouts(side: Side) -> tuple[str, ...]:
    return combined(side, "widget", tuple(LAYOUTS), PLACES)


def _column(board: Board, place: str, share: float = 0.7) -> tuple[float, float]:
    """Left edge and width of the column that things stand in."""
    room, pad = board.picture.width, board.theme.size
    width = room - 2 * pad if place == "wide" else min(room - 2 * pad, max(130, room * share))
    left = {"right": room - pad - width, "middle": (room - width) / 2}.get(place, pad)
    return left, width


def _room(board: Board, y: float) -> bool:
    """Whether one more row fits below `y`."""
    return y + board.theme.row + 2 <= board.picture.height


def _form(board: Board, place: str) -> None:
    """Labels above or before their fields, two buttons below."""
    theme, rng = board.theme, board.rng
    left, width = _column(board, place)
    above = rng.random() < 0.5
    step = theme.row + theme.size * (2.0 if above else 0.6)
    y = theme.size * 1.0
    board.text(left, y + theme.size * 0.4, board.names.one(texts.PLACES), theme.accent)
    y += theme.size * 1.8
    while y + step + theme.row < board.picture.height and len(board.widgets) < 6:
        name = board.names.one(texts.FIELDS)
        kind = rng.choice(("field", "field", "field", "drop-down"))
        value = board.names.one(texts.FIELDS, 1.0) if rng.random() < 0.4 else ""
        if above:
            board.text(left, y + theme.size * 0.5, name)
            board.field(left, y + theme.size * 1.3, width, name, value, kind)
        else:
            gap = width * 0.42
            if board.width(name) > gap - 4:
                continue
            board.text(left, y + theme.row / 2, name)
            board.field(left + gap, y, width - gap, name, value, kind)
        y += step
    _buttons(board, left, y + 2, left + width, 2)


def _buttons(board: Board, left: float, y: float, right: float, count: int) -> float:
    """A row of buttons from the left, as many as fit. Returns where the last one ends."""
    x = left
    for number in range(count):
        name = board.names.one(texts.VERBS)
        width = board.button_width(name)
        if x + width > right or not _room(board, y):
            break
        board.button(x, y, width, name, number == 0)
        x += width + board.theme.size * 0.6
    return x


def _toolbar(board: Board, place: str) -> None:
    """Icons and buttons in a bar, text below."""
    theme, rng = board.theme, board.rng
    size = theme.row * 1.15
    y = 3.0 if place != "right" else board.picture.height - size - 4
    board.panel(0, y - 3, board.picture.width - 1, size + 6)
    x = float(theme.size)
    for name in rng.sample(tuple(ICONS), 12):
        if x + size > board.picture.width - 4:
            break
        board.icon(x, y, size, name, place in ("wide", "middle"))
        x += size + rng.choice((3, 6))
    top = theme.size * 1.5 + (size + 8 if place != "right" else 0)
    _buttons(board, theme.size, top, board.picture.width - 4, 4)


def _dialog(board: Board, place: str) -> None:
    """A window with a title, a text and buttons on its right or left."""
    theme, rng = board.theme, board.rng
    w, h = board.picture.width * rng.uniform(0.75, 0.92), board.picture.height * rng.uniform(0.65, 0.85)
    x, y = (board.picture.width - w) / 2, (board.picture.height - h) / 2
    board.panel(x, y, w, h)
    bar = theme.row
    board.draw.rectangle([x + 1, y + 1, x + w - 1, y + bar], theme.accent)
    board.text(x + theme.size * 0.7, y + bar / 2, board.names.one(texts.PLACES), readable_on(theme.accent))
    cross = bar * 0.5
    board.text(x + w - cross * 1.2, y + bar / 2, "×", readable_on(theme.accent), "mm")
    board.keep("button", "Close window", x + w - bar, y, bar, bar)
    for line in range(rng.randint(1, 2)):
        text = " ".join(board.names.one(texts.VERBS, 1.0).lower() for _ in range(2)) + rng.choice((".", "?"))
        if board.width(text) < w - 2 * theme.size:
            board.text(x + theme.size, y + bar + theme.size * (1.2 + 1.5 * line), text)
    names = [board.names.one(texts.VERBS) for _ in range(rng.randint(1, 3))]
    widths = [board.button_width(name) for name in names]
    total = sum(widths) + theme.size * 0.6 * (len(names) - 1)
    at = {"left": x + theme.size, "middle": x + (w - total) / 2}.get(place, x + w - theme.size - total)
    for name, width in zip(names, widths, strict=True):
        board.button(at, y + h - theme.row - theme.size * 0.7, width, name, name == names[-1])
        at += width + theme.size * 0.6
    if total > w - theme.size:
        board.keep("button", "", -1, -1, 0, 0)  # does not fit: the screen is drawn again


def _tiles(board: Board, place: str) -> None:
    """A grid of buttons of one size, such as a keypad."""
    theme, rng = board.theme, board.rng
    left, width = _column(board, place, 0.8)
    digits = rng.random() < 0.3
    names = list("123456789*0#") if digits else [board.names.one(texts.VERBS) for _ in range(12)]
    across = 3 if digits else max(1, min(4, int(width / (max(map(board.button_width, names)) + 6))))
    step = width / across
    y = float(theme.size)
    for start in range(0, len(names), across):
        if not _room(board, y):
            break
        for column, name in enumerate(names[start : start + across]):
            board.button(left + column * step + 2, y, step - 5, name, start % 2 == 0, "key" if digits else "button")
        y += theme.row + 5


def _ticks(board: Board, place: str) -> None:
    """Check boxes or radio buttons in one or two columns, a button below."""
    theme, rng = board.theme, board.rng
    left, width = _column(board, place, 0.9)
    kind = rng.choice(("check box", "radio button"))
    columns = 2 if width > 300 and rng.random() < 0.6 else 1
    y = theme.size * 1.2
    while y + 2.4 * theme.row < board.picture.height and len(board.widgets) < 14:
        for column in range(columns):
            name = board.names.one(texts.OPTIONS)
            if board.width(name) + 3 * theme.size < width / columns:
                board.tick(left + column * width / columns, y, name, kind)
        y += theme.size * 2.1
    _buttons(board, left, y, left + width, 2)


def _menu(board: Board, place: str) -> None:
    """A menu bar with one menu open."""
    theme, rng = board.theme, board.rng
    bar = theme.row
    board.draw.rectangle([0, 0, board.picture.width, bar], theme.surface)
    x, starts = 2.0, []
    for name in rng.sample(texts.MENUS.split("|"), 6):
        width = board.width(name) + theme.size * 1.4
        if x + width > board.picture.width:
            break
        board.text(x + width / 2, bar / 2, name, None, "mm")
        board.keep("menu", name, x, 0, width, bar)
        starts.append(x)
        x += width
    left, y = starts[0 if place in ("left", "wide") else -1 if place == "right" else len(starts) // 2], bar
    names = [board.names.one(texts.VERBS) for _ in range(rng.randint(2, 7))]
    width = max(map(board.width, names)) + theme.size * 3
    left = min(left, board.picture.width - width - 2)
    names = names[: max(1, int((board.picture.height - y) / bar) - 1)]
    board.panel(left, y, width, bar * len(names))
    for name in names:
        board.text(left + theme.size, y + bar / 2, name)
        board.keep("menu item", name, left, y, width, bar)
        y += bar


def _settings(board: Board, place: str) -> None:
    """Rows with a text and a switch at their end."""
    theme = board.theme
    left, width = _column(board, place, 0.8)
    y = theme.size * 0.5
    while _room(board, y) and len(board.widgets) < 9:
        name = board.names.one(texts.OPTIONS)
        if board.width(name) > width - theme.size * 4:
            continue
        board.panel(left, y, width, theme.row, mix(theme.surface, theme.ground, 0.3))
        board.text(left + theme.size * 0.7, y + theme.row / 2, name)
        board.switch(left + width - theme.size * 3, y + theme.row / 2, name)
        y += theme.row + (4 if place != "wide" else 0)


def _desktop(board: Board, place: str) -> None:
    """Icons with a text below, as on a desktop or a home screen; known by the text."""
    theme, rng = board.theme, board.rng
    step = theme.size * 6.5
    icons = rng.sample(tuple(ICONS), 20)
    columns, rows = int(board.picture.width / step), int(board.picture.height / step)
    cells = [(i, j) for j in range(rows) for i in range(columns)]
    if place in ("left", "right"):
        cells.sort(key=lambda c: c[0], reverse=place == "right")
    for (i, j), icon in zip(cells[: rng.randint(2, 12)], icons, strict=False):
        name = board.names.one(texts.PLACES)
        if board.width(name) > step - 4:
            continue
        side = theme.size * 3.4
        x, y = i * step + (step - side) / 2, j * step + theme.size * 0.6
        board.icon(x, y, side, icon, False)
        board.widgets.pop()
        board.text(i * step + step / 2, y + side + theme.size * 0.8, name, readable_on(theme.ground), "mm")
        board.keep("icon", name, x, y, side, side + theme.size * 1.5)


def _tabs(board: Board, place: str) -> None:
    """A row of tabs, one of them open, with a few check boxes or a field below."""
    theme, rng = board.theme, board.rng
    y, x = theme.size * rng.choice((0.2, 1.5)), float(theme.size)
    names = [board.names.one(texts.PLACES) for _ in range(rng.randint(3, 5))]
    on = rng.randrange(3)
    for number, name in enumerate(names):
        width = board.width(name) + theme.size * 1.6
        if x + width > board.picture.width - 4:
            break
        if number == on:
            board.draw.rectangle([x, y, x + width, y + theme.row], theme.surface, theme.edge)
            board.draw.line([x, y, x + width, y], theme.accent, 3)
        board.text(x + width / 2, y + theme.row / 2, name, None, "mm")
        board.keep("tab", name, x, y, width, theme.row)
        x += width
    board.draw.line([0, y + theme.row, board.picture.width, y + theme.row], theme.edge)
    y += theme.row + theme.size * 1.2
    for _ in range(rng.randint(1, 4)):
        name = board.names.one(texts.OPTIONS)
        if _room(board, y) and board.width(name) + 3 * theme.size < board.picture.width:
            board.tick(theme.size, y, name, "check box")
            y += theme.size * 2
    _buttons(board, theme.size, y, board.picture.width - 4, 2 if _room(board, y) else 0)


def _site(board: Board, place: str) -> None:
    """Links in a row or a column, a search field, a button."""
    theme, rng = board.theme, board.rng
    x, y = float(theme.size), float(theme.size)
    down = place in ("left", "right")
    for _ in range(rng.randint(3, 7)):
        name = board.names.one(texts.PLACES)
        if x + board.width(name) > board.picture.width - 4 or not _room(board, y):
            break
        width = board.link(x, y, name)
        x, y = (x, y + theme.size * 1.9) if down else (x + width + theme.size * 1.3, y)
    name = board.names.one("Search|Find|Keyword|Query|Look up|Ask", 0.2)
    y += theme.size * 1.6
    width = board.picture.width * rng.uniform(0.4, 0.6)
    if _room(board, y):
        board.field(theme.size, y, width, name, name)
        _buttons(board, theme.size * 1.6 + width, y, board.picture.width - 4, 1)


LAYOUTS: dict[str, Callable[[Board, str], None]] = {
    "form": _form, "toolbar": _toolbar, "dialog": _dialog, "tiles": _tiles, "ticks": _ticks, "menu": _menu,
    "settings": _settings, "desktop": _desktop, "site": _site, "tabs": _tabs,
}  # fmt: skip
