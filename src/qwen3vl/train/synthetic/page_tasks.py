"""Tasks on web pages in a real browser: one step of `computer_use`, and the box of a named target."""

from __future__ import annotations

import random

from qwen3vl.train.synthetic.answers import computer_call
from qwen3vl.train.synthetic.browser import Shown, Target
from qwen3vl.train.synthetic.pages import draw_page
from qwen3vl.train.synthetic.phone import draw_phone
from qwen3vl.train.synthetic.sample import ActionTruth, Mark, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scenes import located, pointed
from qwen3vl.train.synthetic.widget_tasks import CLICKS, clicked, computer_sample
from qwen3vl.train.synthetic.words import invented, number, word

PAGE_CLICKS = {
    **CLICKS,
    "focused field": ("Click the {} field.", 'Click into the "{}" field.'),
    "list item": ('Click "{}".', "Open {} in the list.", "Select {}."),
    "file": ("Click {}.", 'Select the file "{}".'),
    "day": ("Click day {} of the calendar.", "Choose the {} in the calendar."),
    "page number": ("Go to page {} of the results.", "Open result page {}."),
}
ODD = (  # another action on a target, and how it is asked for
    ("double_click", 'Double-click "{}".'),
    ("right_click", 'Right-click "{}".'),
    ("right_click", "Open the context menu of {}."),
    ("mouse_move", 'Move the mouse over "{}".'),
    ("mouse_move", "Hover over {}."),
    ("triple_click", 'Triple-click "{}".'),
    ("middle_click", "Middle-click {}."),
)
KEYS = (
    ("Press Enter.", ("enter",)), ("Press the Escape key.", ("esc",)), ("Press Tab.", ("tab",)),
    ("Copy the selection with the keyboard.", ("ctrl", "c")), ("Paste with the keyboard.", ("ctrl", "v")),
    ("Select everything with the keyboard.", ("ctrl", "a")), ("Undo with the keyboard.", ("ctrl", "z")),
    ("Save with the keyboard.", ("ctrl", "s")), ("Reload the page with the keyboard.", ("f5",)),
    ("Press the Delete key.", ("delete",)), ("Press Backspace.", ("backspace",)), ("Press Page Down.", ("pagedown",)),
    ("Find on the page with the keyboard.", ("ctrl", "f")), ("Open a new tab with the keyboard.", ("ctrl", "t")),
    ("Close the tab with the keyboard.", ("ctrl", "w")), ("Press the space bar.", ("space",)),
    ("Press the down arrow key.", ("down",)), ("Press the up arrow key.", ("up",)),
)  # fmt: skip


def click(rng: random.Random, side: Side) -> SyntheticSample:
    page = draw_page(rng, side)
    target = rng.choice(page.targets)
    task = rng.choice(PAGE_CLICKS[target.kind]).format(target.name)
    return clicked("page_click", page.image, task, target.box)


def locate(rng: random.Random, side: Side) -> SyntheticSample:
    """One to three targets by name."""
    page = draw_page(rng, side)
    chosen = rng.sample(page.targets, min(len(page.targets), rng.choice((1, 1, 2, 3))))
    items = tuple((_words(t), t.box) for t in chosen)
    return located("page_locate", page.image, [words for words, _ in items], items)


def point(rng: random.Random, side: Side) -> SyntheticSample:
    """The middle of a named target, of web pages and of phones: a click at a tenth of the prompt's length."""
    page = draw_page(rng, side) if rng.random() < 0.7 else draw_phone(rng, side)
    target = rng.choice(page.targets)
    words = _words(target)
    return pointed("page_point", page.image, f"the {words}", ((words, target.box),))


def _words(target: Target) -> str:
    kind = "field" if target.kind == "focused field" else target.kind
    return f"{kind} {target.name}" if kind in ("day", "page number", "file") else f"{target.name} {kind}"


def act(rng: random.Random, side: Side) -> SyntheticSample:
    """Any other action: type, press keys, scroll, wait, answer, finish, unusual clicks.

    What the page must be read for comes more often than what the sentence alone tells."""
    page = draw_page(rng, side)
    forms = [_odd_click, _odd_click, rng.choice((_key, _scroll, _wait, _finish))]
    forms += [_type] * 4 if _fields(page) else []
    forms += [_answer] * 4 if page.facts else []
    return rng.choice(forms)(rng, side, page)


NAME = "page_action"


def _fields(page: Shown) -> list[Target]:
    return [t for t in page.targets if t.kind in ("field", "focused field") and t.name != "display"]


def _odd_click(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    target = rng.choice(page.targets)
    action, words = rng.choice(ODD)
    return clicked(NAME, page.image, words.format(target.name), target.box, action)


def _type(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    """Into a field: types if it has the focus, else clicks it first."""
    fields = _fields(page)
    target = rng.choice([t for t in fields if t.kind == "focused field"] * 4 + fields)
    focused = target.kind == "focused field"
    text = rng.choice((word(rng, side), invented(rng, side), number(rng), f"{word(rng, side)} {word(rng, side)}"))
    words = rng.choice(('Type "{}" into the {} field.', 'Enter "{}" as {}.', 'Fill "{}" into {}.'))
    task = words.format(text, target.name)
    if not focused:
        return clicked(NAME, page.image, task, target.box)
    answer = computer_call("type", None, page.image.size, {"text": text})
    truth = ActionTruth("type", None, text)
    return computer_sample(NAME, page.image, task, answer, truth, (Mark(target.box, "focus"),))


def _key(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    task, keys = rng.choice(KEYS)
    answer = computer_call("key", None, page.image.size, {"keys": list(keys)})
    return computer_sample(NAME, page.image, task, answer, ActionTruth("key", None, " ".join(keys)))


def _scroll(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    """Positive is up, as the tool says."""
    pixels = rng.choice((100, 200, 300, 400, 500))
    down = rng.random() < 0.6
    task = f"Scroll {'down' if down else 'up'} by {pixels} pixels."
    answer = computer_call("scroll", None, page.image.size, {"pixels": -pixels if down else pixels})
    return computer_sample(NAME, page.image, task, answer, ActionTruth("scroll"))


def _wait(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    seconds = rng.randint(1, 10)
    task = rng.choice((f"Wait for {seconds} seconds.", f"Wait {seconds} s until the page has loaded."))
    answer = computer_call("wait", None, page.image.size, {"time": seconds})
    return computer_sample(NAME, page.image, task, answer, ActionTruth("wait"))


def _answer(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    """A question about something that the page says."""
    question, text = rng.choice(page.facts)
    answer = computer_call("answer", None, page.image.size, {"text": text})
    return computer_sample(NAME, page.image, f"Answer: {question}", answer, ActionTruth("answer", None, text))


def _finish(rng: random.Random, side: Side, page: Shown) -> SyntheticSample:
    good = rng.random() < 0.5
    status = "success" if good else "failure"
    task = rng.choice(("The task is done. Finish.", "Everything is done: end the task.")) if good else rng.choice(
        ("This cannot be done here. Give up.", "The task is impossible: end it.")
    )  # fmt: skip
    answer = computer_call("terminate", None, page.image.size, {"status": status})
    return computer_sample(NAME, page.image, task, answer, ActionTruth("terminate", None, status))


TASKS: dict[str, Task] = {"page_click": click, "page_locate": locate, "page_point": point, NAME: act}
