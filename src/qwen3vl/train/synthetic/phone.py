"""Phone-like pages in real Chromium, and one step of `mobile_use` on them. Layouts "kind/frame" belong to sides."""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from qwen3vl.agent.actions import mobile_request
from qwen3vl.train.synthetic import interface_words as texts
from qwen3vl.train.synthetic.answers import XY, middle, mobile_call
from qwen3vl.train.synthetic.browser import Page, Shown, Target, drawn
from qwen3vl.train.synthetic.page_blocks import Blocks, mark
from qwen3vl.train.synthetic.page_style import draw_style
from qwen3vl.train.synthetic.pages import document
from qwen3vl.train.synthetic.sample import ActionTruth, Mark, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.sides import combined
from qwen3vl.train.synthetic.widget_tasks import turns
from qwen3vl.train.synthetic.words import invented, number, price, word

VIEWPORTS = ((240, 480), (256, 512), (270, 480), (288, 512), (224, 448), (300, 480))
FRAMES = ("bare", "head", "tabs", "both")


@lru_cache(maxsize=2)
def layouts(side: Side) -> tuple[str, ...]:
    return combined(side, "phone", tuple(KINDS), FRAMES)


def draw_phone(rng: random.Random, side: Side) -> Shown:
    """One of the phone's pages of a side, with at least one target."""
    return drawn(rng, side, "phone", build)


def build(rng: random.Random, side: Side) -> Page:
    viewport = rng.choice(VIEWPORTS)
    blocks = Blocks(rng, side, draw_style(rng, side, rng.randint(10, 14)))
    kind, frame = rng.choice(layouts(side)).split("/")
    main = f'<div class="g" style="padding:8px;overflow:hidden">{KINDS[kind](blocks, viewport)}</div>'
    head = _head(blocks) if frame in ("head", "both") else ""
    tabs = _tab_bar(blocks) if frame in ("tabs", "both") else ""
    column = f'<div style="height:100%;display:flex;flex-direction:column">{_status(blocks)}{head}{main}{tabs}</div>'
    over = blocks.dialog() if rng.random() < 0.1 else ""
    return Page(document(blocks.style.css, column + over), viewport)


def _status(b: Blocks) -> str:
    clock = f"{b.rng.randrange(24)}:{b.rng.randrange(60):02d}"
    pieces = [f'<span class="g">{clock}</span>', f"{b.rng.randint(5, 100)}%"]
    return b.row(pieces, "font-size:9px;padding:1px 8px")


def _head(b: Blocks) -> str:
    """A title with an arrow back, perhaps icons."""
    icons = "".join(b.icon_button(b.style.size) for _ in range(b.rng.randint(0, 2)))
    title = html.escape(b.names.one(texts.PLACES))
    return f'<div class="bar"><b {mark("icon", "back arrow")}>‹&nbsp;</b><b class="g">{title}</b>{icons}</div>'


def _tab_bar(b: Blocks) -> str:
    cells = []
    for _ in range(b.rng.randint(3, 4)):
        _, picture = b.icon(b.style.size + 4)
        name = b.names.one(texts.PLACES, 0.2)
        inner = f"{picture}<div style='font-size:9px'>{html.escape(name)}</div>"
        cells.append(f'<div class="g" style="text-align:center;overflow:hidden" {mark("tab", name)}>{inner}</div>')
    return b.row(cells, f"padding:4px;background:rgb{b.style.surface}")


def _home(b: Blocks, viewport: tuple[int, int]) -> str:
    """Apps with names below."""
    columns = b.rng.choice((3, 4))
    wide = (viewport[0] - 24) // columns - 6
    cells = []
    for _ in range(columns * b.rng.randint(2, 5)):
        _, picture = b.icon(round(wide * 0.62))
        name = b.names.one(texts.PLACES, 0.3)
        text = f'<div style="font-size:{max(8, b.style.size - 3)}px;overflow:hidden">{html.escape(name)}</div>'
        cells.append(f'<div style="width:{wide}px;text-align:center" {mark("app", name)}>{picture}{text}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:10px 6px">{"".join(cells)}</div>'


def _settings(b: Blocks, viewport: tuple[int, int]) -> str:
    rows = []
    for _ in range(b.rng.randint(4, 9)):
        name = b.names.one(texts.OPTIONS, 0.2)
        text = f'<span class="g">{html.escape(name)}</span>'
        rows.append(b.row([text, b.switch(name)], "padding:5px;border-bottom:1px solid rgba(128,128,128,.3)"))
    return b.panel(rows)


def _list(b: Blocks, viewport: tuple[int, int]) -> str:
    return b.list_rows(b.rng.randint(4, 8))


def _form(b: Blocks, viewport: tuple[int, int]) -> str:
    return f"<h2>{html.escape(b.names.one(texts.PLACES))}</h2>" + b.form(b.rng.randint(2, 5), b.rng.random() < 0.4)


def _chat(b: Blocks, viewport: tuple[int, int]) -> str:
    """Messages from both sides, a field and a button below."""
    lines = []
    for _ in range(b.rng.randint(3, 6)):
        place = b.rng.choice(("start", "end"))
        lines.append(f'<div class="p" style="align-self:{place};max-width:75%">{b.text(b.rng.randint(1, 6))}</div>')
    focus = b.rng.random() < 0.4
    field = f'<div class="g">{b.field(b.names.one("Message|Reply|Text|Comment", 0.1), True, "field", focus)}</div>'
    return b.column(lines) + b.row([field, b.button()], "margin-top:10px")


def _dialer(b: Blocks, viewport: tuple[int, int]) -> str:
    size = round((viewport[0] - 60) / 3)
    form = f"width:{size}px;height:{round(size * 0.62)}px;font-size:{round(size * 0.3)}px;padding:0"
    keys = [f'<button class="b q" style="{form}" {mark("key", k)}>{k}</button>' for k in "123456789*0#"]
    rows = [b.row(keys[i : i + 3], "justify-content:center") for i in range(0, 12, 3)]
    return b.column([*rows, b.row([b.button()], "justify-content:center")])


def _shop(b: Blocks, viewport: tuple[int, int]) -> str:
    return b.column([b.row([b.card(34), b.card(34)], "align-items:stretch") for _ in range(b.rng.randint(1, 2))])


def _article(b: Blocks, viewport: tuple[int, int]) -> str:
    text = "".join(f"<p>{b.text(b.rng.randint(5, 14))} {b.link()}</p>" for _ in range(b.rng.randint(2, 4)))
    return f"<h2>{html.escape(b.names.one(texts.PLACES))}</h2>{text}" + b.button()


def _balance(b: Blocks, viewport: tuple[int, int]) -> str:
    """Names with amounts."""
    rows = []
    for _ in range(b.rng.randint(3, 7)):
        name, value = b.names.one(texts.PLACES, 0.8), price(b.rng)
        text = f'<span class="g" {mark("list item", name)}>{html.escape(name)}</span>'
        fact = f"<b {mark('fact', f'How much is {name}?={value}')}>{html.escape(value)}</b>"
        rows.append(b.row([text, fact], "padding:5px"))
    return b.panel(rows) + b.button()


KINDS: dict[str, Callable[[Blocks, tuple[int, int]], str]] = {
    "home": _home, "settings": _settings, "list": _list, "form": _form, "chat": _chat, "dialer": _dialer,
    "shop": _shop, "article": _article, "balance": _balance,
}  # fmt: skip


# ------------------------------------------------------------------------------------------- steps


@dataclass(frozen=True, slots=True)
class Move:
    """What is asked, the step's call, what it says, and its truth."""

    task: str
    call: str
    thought: str
    intent: str
    truth: ActionTruth
    marks: tuple[Mark, ...] = ()


TAPS = ('Tap "{}"', "Tap the {} {}", "Open {}", 'Click on "{}"')


def _tapped(page: Shown, target: Target, task: str) -> Move:
    what = f"the {target.name} {'field' if target.kind == 'focused field' else target.kind}"
    call = mobile_call("click", middle(target.box), page.image.size)
    return Move(task, call, f"I need to tap {what}.", f"I tapped {what}.", ActionTruth("click", target.box),
                (Mark(target.box, "click"),))  # fmt: skip


def _tap(rng: random.Random, side: Side, page: Shown) -> Move:
    target = rng.choice(page.targets)
    kind = "field" if target.kind == "focused field" else target.kind
    words = TAPS[:2] if kind in ("field", "switch", "check box", "icon", "key", "drop-down") else TAPS
    task = words[1].format(target.name, kind) if kind == "icon" else rng.choice(words).format(target.name, kind)
    return _tapped(page, target, task)


def _hold(rng: random.Random, side: Side, page: Shown) -> Move:
    target, seconds = rng.choice(page.targets), rng.choice((1, 2, 2, 3))
    task = f'Press and hold "{target.name}" for {seconds} seconds'
    call = mobile_call("long_press", middle(target.box), page.image.size, {"time": seconds})
    return Move(task, call, f"I need to long-press {target.name}.", f"I long-pressed {target.name}.",
                ActionTruth("long_press", target.box), (Mark(target.box, "hold"),))  # fmt: skip


SWIPES: dict[str, tuple[XY, XY]] = {  # the finger's way, in parts of the screen
    "Scroll down": ((0.5, 0.7), (0.5, 0.3)),
    "Scroll up": ((0.5, 0.3), (0.5, 0.7)),
    "Swipe to the left": ((0.8, 0.5), (0.2, 0.5)),
    "Swipe to the right": ((0.2, 0.5), (0.8, 0.5)),
}


def _swipe(rng: random.Random, side: Side, page: Shown) -> Move:
    task, (start, end) = rng.choice(sorted(SWIPES.items()))
    width, height = page.image.size
    call = mobile_call(
        "swipe", (start[0] * width, start[1] * height), (width, height), to=(end[0] * width, end[1] * height)
    )
    words = task[0].lower() + task[1:]
    return Move(task, call, f"I need to {words}.", f"I swiped to {words}.", ActionTruth("swipe"))


def _type(rng: random.Random, side: Side, page: Shown) -> Move:
    """Into the field that has the focus; one without it is tapped first."""
    fields = [t for t in page.targets if t.kind in ("field", "focused field")]
    if not fields:
        return _tap(rng, side, page)
    target = rng.choice([t for t in fields if t.kind == "focused field"] * 4 + fields)
    text = rng.choice((word(rng, side), invented(rng, side), number(rng)))
    task = f'Enter "{text}" into the {target.name} field'
    if target.kind == "field":
        return _tapped(page, target, task)
    call = mobile_call("type", None, page.image.size, {"text": text})
    return Move(task, call, "The field is active, so I can type.", f"I typed {text}.", ActionTruth("type", None, text),
                (Mark(target.box, "focus"),))  # fmt: skip


BUTTONS = (
    ("Go back", "Back"), ("Return to the previous page", "Back"), ("Go to the home screen", "Home"),
    ("Leave the app for the home screen", "Home"), ("Show the open apps", "Menu"), ("Press Enter", "Enter"),
)  # fmt: skip


def _button(rng: random.Random, side: Side, page: Shown) -> Move:
    task, button = rng.choice(BUTTONS)
    call = mobile_call("system_button", None, page.image.size, {"button": button})
    return Move(task, call, f"The {button} button does that.", f"I pressed {button}.",
                ActionTruth("system_button", None, button))  # fmt: skip


def _wait(rng: random.Random, side: Side, page: Shown) -> Move:
    seconds = rng.randint(1, 10)
    call = mobile_call("wait", None, page.image.size, {"time": seconds})
    return Move(f"Wait for {seconds} seconds", call, "I need to wait.", f"I waited {seconds} s.", ActionTruth("wait"))


def _answer(rng: random.Random, side: Side, page: Shown) -> Move:
    if not page.facts:
        return _tap(rng, side, page)
    question, text = rng.choice(page.facts)
    call = mobile_call("answer", None, page.image.size, {"text": text})
    return Move(f"Answer: {question}", call, "The screen says it.", "I answered.", ActionTruth("answer", None, text))


def _finish(rng: random.Random, side: Side, page: Shown) -> Move:
    status = rng.choice(("success", "failure"))
    task = "The task is done, finish" if status == "success" else "This is impossible, give up"
    call = mobile_call("terminate", None, page.image.size, {"status": status})
    return Move(task, call, "Nothing is left to do.", "I ended the task.", ActionTruth("terminate", None, status))


def step(rng: random.Random, side: Side) -> SyntheticSample:
    page = draw_phone(rng, side)
    forms = (_hold, _swipe, _button, _wait, _finish, *((_type, _answer) * 2), *((_tap,) * 5))
    return _sample("phone_action", rng, side, page, rng.choice(forms)(rng, side, page))


def tap(rng: random.Random, side: Side) -> SyntheticSample:
    page = draw_phone(rng, side)
    return _sample("phone_click", rng, side, page, _tap(rng, side, page))


def _sample(name: str, rng: random.Random, side: Side, page: Shown, move: Move) -> SyntheticSample:
    """With the prompt of agent.actions.mobile_request; in a third of all cases something was done before."""
    before = [f"I opened the {word(rng, side)} app."] if rng.random() < 0.3 else []
    request = mobile_request(move.task, page.image, before)
    answer = f'Thought: {move.thought}\nAction: "{move.intent}"\n{move.call}'
    return SyntheticSample(name, turns(request), answer, move.truth, move.marks)


TASKS: dict[str, Task] = {"phone_click": tap, "phone_action": step}
