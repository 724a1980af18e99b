"""Tasks on drawn screens: boxes of widgets, points on them, and clicks of `computer_use`."""

from __future__ import annotations

import random

from PIL import Image

from qwen3vl.agent.actions import computer_request
from qwen3vl.train.synthetic.answers import computer_call, middle, reading_order
from qwen3vl.train.synthetic.sample import ActionTruth, Mark, PixelBox, Side, SyntheticSample, Task
from qwen3vl.train.synthetic.scenes import located, pointed
from qwen3vl.train.synthetic.widget_layouts import draw_board
from qwen3vl.train.synthetic.widgets import Widget
from qwen3vl.types import Message, Request

CLICKS = {
    "button": (
        "Click the {} button.",
        'Click "{}".',
        'Click on the "{}" button.',
        "Press {}.",
        "click {}",
        "Find the {} button and click it.",
    ),
    "key": ("Click the {} key.", "Click {}."),
    "field": ("Click the {} field.", 'Click into the "{}" field.', "Select the {} input."),
    "drop-down": ("Open the {} drop-down.", 'Click the "{}" drop-down list.'),
    "check box": ('Click the "{}" check box.', "Toggle {}.", 'Click the check box "{}".'),
    "radio button": ('Choose "{}".', 'Select the option "{}".', "Click the {} radio button."),
    "switch": ("Toggle {}.", 'Click the "{}" switch.', "Flip the {} switch."),
    "menu": ("Open the {} menu.", 'Click "{}" in the menu bar.'),
    "menu item": ('Click "{}" in the menu.', "Choose {} from the menu.", 'Click "{}".'),
    "tab": ("Open the {} tab.", 'Click the "{}" tab.', "Go to {}."),
    "link": (
        "Click the {} link.",
        'Follow the link "{}".',
        "Open {}.",
        'Click on "{}".',
        'Click on the link "{}".',
        "Go to {}.",
    ),
    "icon": ("Click the {} icon.", "Click on the {} icon."),
}


def clicked(name: str, picture: Image.Image, task: str, box: PixelBox, action: str = "left_click") -> SyntheticSample:
    """A sample of computer_use whose one step is a click (or another action) in the middle of `box`."""
    answer = computer_call(action, middle(box), picture.size)
    return computer_sample(name, picture, task, answer, ActionTruth(action, box), (Mark(box, action),))


def computer_sample(
    name: str, picture: Image.Image, task: str, answer: str, truth: ActionTruth, marks: tuple[Mark, ...] = ()
) -> SyntheticSample:
    """A sample with the prompt and the tool of agent.actions.computer_request."""
    request = computer_request(task, picture)
    return SyntheticSample(name, turns(request), answer, truth, marks, tools=tuple(request.tools or ()))


def turns(request: Request) -> tuple[Message, ...]:
    """The messages of a request that was made of messages."""
    assert isinstance(request.messages, list)
    return tuple(request.messages)


def instruction(rng: random.Random, widget: Widget) -> str:
    return rng.choice(CLICKS[widget.kind]).format(widget.name)


def click(rng: random.Random, side: Side) -> SyntheticSample:
    board = draw_board(rng, side)
    widget = rng.choice(board.widgets)
    return clicked("widget_click", board.picture, instruction(rng, widget), widget.box)


def click_small(rng: random.Random, side: Side) -> SyntheticSample:
    """On small screens only."""
    board = draw_board(rng, side, high=280)
    widget = rng.choice(board.widgets)
    return clicked("widget_click_small", board.picture, instruction(rng, widget), widget.box)


def locate(rng: random.Random, side: Side) -> SyntheticSample:
    """Widgets by kind, or one to three by name."""
    board = draw_board(rng, side)
    listed = reading_order(board.widgets, lambda w: w.box)
    if rng.random() < 0.35:
        kind = rng.choice(listed).kind
        same = [w for w in listed if w.kind == kind]
        return located("widget_locate", board.picture, [kind], tuple((kind, w.box) for w in same))
    chosen = rng.sample(listed, min(len(listed), rng.choice((1, 1, 2, 3))))
    items = tuple((w.words, w.box) for w in chosen)
    return located("widget_locate", board.picture, [w.words for w in chosen], items)


def point(rng: random.Random, side: Side) -> SyntheticSample:
    board = draw_board(rng, side)
    widget = rng.choice(board.widgets)
    return pointed("widget_point", board.picture, f"the {widget.words}", ((widget.words, widget.box),))


TASKS: dict[str, Task] = {
    "widget_click_small": click_small,
    "widget_click": click,
    "widget_locate": locate,
    "widget_point": point,
}
