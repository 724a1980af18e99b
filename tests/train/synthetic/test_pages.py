"""Pages in a real Chromium: boxes are what a click hits, answers are read as the truth, pages are kept and found."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.agent.actions import Click, Drag, Pixel, Type, read_step
from qwen3vl.errors import InvalidParams, RenderError
from qwen3vl.train.scoring import score
from qwen3vl.train.synthetic import browser, page_style, page_tasks, pages, phone, widget_layouts, widgets
from qwen3vl.train.synthetic.answers import computer_call, middle, mobile_call
from qwen3vl.train.synthetic.browser import FOLDER, Page, Renderer, Shown, Target
from qwen3vl.train.synthetic.page_style import families
from qwen3vl.train.synthetic.registry import make_sample
from qwen3vl.train.synthetic.sample import Side

NAMES = [*page_tasks.TASKS, *phone.TASKS]
SIDES: tuple[Side, ...] = ("train", "heldout")
CHROMIUM = next((n for n in ("chromium", "chromium-browser", "google-chrome", "chrome") if shutil.which(n)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


def fonts_of(side: Side) -> None:
    if not families(side):
        pytest.skip(f"no fonts of the {side} side")


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    yield made
    made.close()


PAGE = """<!doctype html><body style="margin:0;font:16px sans-serif">
<button data-t="button|Go" style="position:absolute;left:20px;top:30px;width:60px;height:20px">Go</button>
<button data-t="button|Under" style="position:absolute;left:120px;top:30px;width:60px;height:20px">Under</button>
<div style="position:absolute;left:110px;top:20px;width:90px;height:50px;background:red"></div>
<a data-t="link|Out" style="position:absolute;left:190px;top:80px;width:60px">Out</a>
<p style="position:absolute;left:10px;top:100px;width:60px">word <a data-t="link|two lines">two lines of it</a></p>
<b data-t="fact|How much?=3 = 3" style="position:absolute;left:10px;top:60px">3 = 3</b></body>"""


@needs_chromium
def test_only_what_a_click_hits_is_a_target(renderer: Renderer) -> None:
    shown = renderer.render(Page(PAGE, (220, 180)))
    assert shown.image.size == (220, 180)
    assert shown.targets == (Target("button", "Go", (20, 30, 80, 50)),)
    assert shown.facts == (("How much?", "3 = 3"),)
    again = renderer.render(Page(PAGE, (220, 180)))
    assert again.image.tobytes() == shown.image.tobytes() and again.elements == shown.elements
    assert renderer.hit(50, 40) == "button|Go" and renderer.hit(150, 40) == ""


@needs_chromium
@pytest.mark.parametrize("build", [pages.build, phone.build])
@pytest.mark.parametrize("side", SIDES)
def test_answers_hit_the_right_element(renderer: Renderer, side: Side, build: pages.Builder) -> None:
    """From the box through the rounded answer and the agent's reader back to the page."""
    fonts_of(side)
    call, device = (computer_call, "computer") if build is pages.build else (mobile_call, "mobile")
    checked = 0
    for seed in range(4):
        shown = renderer.render(build(random.Random(seed), side))
        assert len({(t.kind, t.name) for t in shown.targets}) == len(shown.targets)
        for target in shown.targets:
            action = "left_click" if device == "computer" else "click"
            step = read_step(call(action, middle(target.box), shown.image.size), shown.image.size, device)  # type: ignore[arg-type]
            assert isinstance(step.action, Click) and isinstance(step.action.at, Pixel)
            hit = renderer.hit(step.action.at.x + 0.5, step.action.at.y + 0.5)
            assert hit == f"{target.kind}|{target.name}", (seed, target, step)
            checked += 1
    assert checked > 20


@needs_chromium
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_read_as_the_truth(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same, the second time from the folder where pages are kept, without a browser."""
    fonts_of("train")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    first = [make_sample(name, "train", 5, index) for index in range(4)]
    for made in first:
        assert score(made, made.answer).perfect, (made.key, made.answer, made.truth)
    monkeypatch.setattr(Renderer, "render", _no_browser)
    again = [make_sample(name, "train", 5, index) for index in range(4)]
    assert [(a.answer, a.truth) for a in again] == [(b.answer, b.truth) for b in first]
    for a, b in zip(again, first, strict=True):
        assert a.pictures[0].image.tobytes() == b.pictures[0].image.tobytes()  # type: ignore[union-attr]


def _no_browser(self: Renderer, page: Page) -> Shown:
    raise RenderError("not again")


def test_a_folder_keeps_sides_and_families_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))

    def render(self: Renderer, page: Page) -> Shown:
        return Shown(Image.new("RGB", page.viewport), (Target("link", page.html, (0, 0, 9, 9)),))

    monkeypatch.setattr(Renderer, "render", render)
    for family in ("web", "phone"):
        for side in SIDES:
            made = browser.shown(side, family, 1234, lambda f=family, s=side: Page(f + s, (20, 10)))  # type: ignore[misc]
            assert made.targets[0].name == family + side
    found = browser.shown("heldout", "phone", 1234, lambda: Page("other", (20, 10)))
    assert found.targets[0].name == "phoneheldout" and found.image.size == (20, 10)
    assert sorted(p.suffix for p in tmp_path.rglob("*") if p.is_file()) == [".json"] * 4 + [".png"] * 4


def test_themes_and_layouts_of_the_sides_differ() -> None:
    for of in (page_style.themes, pages.layouts, phone.layouts, widgets.themes, widget_layouts.layouts):
        assert of("train") and of("heldout") and not set(of("train")) & set(of("heldout"))


def test_whole_kinds_of_layouts_are_held_out() -> None:
    for of in (pages.layouts, phone.layouts, widget_layouts.layouts):
        train, held = ({name.split("/")[0] for name in of(side)} for side in SIDES)
        assert 1 <= len(held - train) <= 3 and held & train and len(train) > 6


def test_pages_need_no_browser_to_be_written() -> None:
    fonts_of("train")
    page = pages.build(random.Random(1), "train")
    assert page == pages.build(random.Random(1), "train") and "http" not in page.html
    assert page.viewport[0] <= 640 and page.viewport[1] <= 480


def test_a_side_without_fonts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_style, "families", lambda side: ())
    with pytest.raises(InvalidParams, match="no fonts for the heldout side"):
        page_style.draw_style(random.Random(0), "heldout", 12)


def test_phone_answers() -> None:
    call = mobile_call("swipe", (100, 300), (200, 400), to=(100, 100))
    step = read_step(f'Thought: Down.\nAction: "I swiped."\n{call}', (200, 400), "mobile")
    assert step.action == Drag(Pixel(100, 300), Pixel(100, 100))
    assert (step.thought, step.intent) == ("Down.", "I swiped.")
    typed = read_step(mobile_call("type", None, (200, 400), {"text": 'a "b"'}), (200, 400), "mobile")
    assert typed.action == Type('a "b"')


def test_every_kind_of_target_can_be_asked_for() -> None:
    """The kinds that builders write, against the sentences there are for them."""
    kinds = set()
    for seed in range(60):
        fonts_of("train")
        page = pages.build(random.Random(seed), "train").html
        kinds |= {piece.split("|")[0] for piece in page.split('data-t="')[1:]}
    assert kinds - {"fact"} <= set(page_tasks.PAGE_CLICKS) and len(kinds) > 8
