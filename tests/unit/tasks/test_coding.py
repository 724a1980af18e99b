"""Pictures into code: prompts, rounds, likeness, and Python that runs only when asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from qwen3vl.errors import InvalidParams, ParseError, RenderError
from qwen3vl.tasks import coding, coding_python
from qwen3vl.tasks.coding import code
from qwen3vl.tasks.coding_python import run_python
from qwen3vl.tasks.coding_render import Rendering
from qwen3vl.tasks.coding_similarity import similarity
from qwen3vl.types import ImagePart, TextPart, VideoPart
from tests.fixtures.fake_generator import FakeGenerator
from tests.unit.tasks.recorded import answer, recorded

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)


def page(words: int = 5, colour: str = "navy", shift: int = 0) -> Image.Image:
    """Something like a page: a header and lines of words."""
    picture = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle([0, 0, 640, 60], fill=colour)
    for line in range(words):
        for at in range(7):
            x, y = 30 + at * 85 + shift, 90 + line * 60
            draw.rectangle([x, y, x + 40 + (line * 7 + at * 13) % 35, y + 14], fill="black")
    return picture


# ------------------------------------------------------------------------------------- likeness


def test_the_same_picture_is_one_and_opposites_are_near_zero() -> None:
    assert similarity(page(), page()) == pytest.approx(1)
    assert similarity(Image.new("RGB", (100, 100)), Image.new("RGB", (100, 100), "white")) < 0.01


def test_the_likeness_orders_known_pairs() -> None:
    target = page()
    tries = [
        page(),
        page(shift=2),
        page(colour="blue"),
        page(words=2),
        page(shift=40),
        Image.new("RGB", (640, 480), "white"),
    ]
    values = [similarity(target, one) for one in tries]
    assert values == sorted(values, reverse=True), values
    assert values[2] > 0.8 and values[-1] < 0.35


def test_size_does_not_matter_but_shape_does() -> None:
    target = page()
    assert similarity(target, target.resize((1280, 960), Image.Resampling.BICUBIC)) > 0.97
    longer = Image.new("RGB", (640, 960), "white")
    longer.paste(target)
    assert similarity(target, longer) == pytest.approx(0.5, abs=0.02) == similarity(longer, target)
    assert 0 <= similarity(target, Image.new("RGB", (3, 900))) < 0.2


# ------------------------------------------------------------------------------ prompts and parts


def test_the_cookbooks_prompts_and_order() -> None:
    script = ["```html\n<html></html>\n```", "```python\nimport matplotlib\n```"]
    model = FakeGenerator(script)
    made = code(model, page(), "html", draw=False)
    assert made.source == "<html></html>" and made.complete and not made.notes
    assert isinstance(model.parts[0], ImagePart) and model.parts[1] == TextPart(recorded("mmcode_5_html")["prompt"])
    assert model.last.params is not None and model.last.params.max_tokens == 16384
    made = code(model, page(), "matplotlib")
    assert isinstance(model.parts[0], TextPart) and isinstance(model.parts[1], ImagePart)
    assert model.prompt == "Convert this chart image to Python matplotlib code that can reproduce the chart."
    assert made.rendering is None and made.notes == ("not drawn: Python code is run only with run=True",)


def test_videos_are_shown_and_not_compared() -> None:
    model = FakeGenerator(["```html\n<html></html>\n```"] * 2)
    assert code(model, "screen.mp4", draw=False).similarity is None
    assert model.parts[0] == VideoPart("screen.mp4")
    with pytest.raises(InvalidParams, match="a video has none"):
        code(model, "screen.mp4", rounds=1)


def test_a_cut_answer_is_reported() -> None:
    model = FakeGenerator("```html\n<html><body>", finish_reason="length")
    made = code(model, page(), draw=False)
    assert not made.complete and made.source == "<html><body>"
    assert made.notes == ("the answer was cut off at max_tokens", "the code ends in the middle: the answer was cut off")


def test_no_code_is_an_error() -> None:
    with pytest.raises(ParseError, match="no html code") as caught:
        code(FakeGenerator("I see a page."), page(), draw=False)
    assert caught.value.raw == "I see a page."


def test_wrong_wishes_are_refused_before_the_model_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeGenerator([])
    for wishes, told in (
        ({"target": "latex"}, "choose from html"),
        ({"rounds": -1, "draw": False}, "negative"),
        ({"rounds": 1, "draw": False}, "draw=True"),
        ({"rounds": 1, "target": "matplotlib"}, "run=True"),
    ):
        with pytest.raises(InvalidParams, match=told):
            code(model, page(), **wishes)  # type: ignore[arg-type]
    monkeypatch.setenv("CHROMIUM", "/nowhere")
    with pytest.raises(RenderError, match="no Chromium"):
        code(model, page())
    assert model.num_requests == 0


# -------------------------------------------------------------------------------------- rounds


class Drawn:
    """Stands in for the renderer: the name in the source chooses the picture."""

    def __init__(self) -> None:
        self.pictures = {"good": page(), "fair": page(words=3), "bad": page(words=0, colour="red")}

    def __call__(self, source: str, target: str, **_: object) -> Rendering:
        name = source.removeprefix("<html>").removesuffix("</html>")
        if name not in self.pictures:
            raise RenderError(f"{name} cannot be drawn")
        return Rendering(self.pictures[name], ())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    renderer = Drawn()
    monkeypatch.setattr(coding, "render", renderer)
    monkeypatch.setattr(coding, "find_chromium", lambda: "chromium")
    return renderer


def html(*names: str) -> FakeGenerator:
    return FakeGenerator([f"```html\n<html>{name}</html>\n```" for name in names])


def test_rounds_show_the_rendering_and_keep_the_best(drawn: Drawn) -> None:
    model = html("bad", "fair", "bad", "good")
    made = code(model, page(), rounds=5)
    assert made.source == "<html>fair</html>" and [r.number for r in made.rounds] == [0, 1, 2]
    assert made.similarity == made.rounds[1].similarity
    assert made.rounds[0].similarity < made.rounds[1].similarity > made.rounds[2].similarity  # type: ignore[operator]
    assert made.notes == ("stopped after round 2: the likeness did not grow", "round 1 of 2 is the best")
    user, assistant, mend = model.last.messages  # type: ignore[misc]
    assert user.content[0].image.size == (640, 480) and assistant.text == "```html\n<html>fair</html>\n```"
    assert mend.content[1].image is drawn.pictures["fair"] and "mend every difference" in mend.content[-1].text


@pytest.mark.usefixtures("drawn")
def test_a_perfect_page_is_not_mended() -> None:
    model = html("good", "fair")
    made = code(model, page(), rounds=3)
    assert made.similarity == pytest.approx(1) and model.num_requests == 1
    assert made.notes == ("stopped after round 0: the likeness is 1.000",)


@pytest.mark.usefixtures("drawn")
def test_a_failed_drawing_is_told_to_the_model_and_tried_again() -> None:
    model = html("broken", "worse", "good")
    made = code(model, page(), rounds=2)
    assert made.source == "<html>good</html>" and made.rounds[0].problems == ("broken cannot be drawn",)
    assert "These problems were found:\n- worse cannot be drawn" in model.prompt or "broken cannot" in model.prompt


@pytest.mark.usefixtures("drawn")
def test_a_first_answer_without_code_is_mended_too() -> None:
    model = FakeGenerator(["I see a page.", "```html\n<html>fair</html>\n```"])
    made = code(model, page(), rounds=1)
    assert made.source == "<html>fair</html>" and "no html code" in model.prompt


@pytest.mark.usefixtures("drawn")
def test_faults_of_a_diagram_are_told() -> None:
    model = FakeGenerator(["```xml\n<mxGraphModel><root/></mxGraphModel>\n```"])
    made = code(model, page(), "drawio", draw=False)
    assert made.problems == (
        "0 cells have no parent, where only the root cell (id 0) may: the root cell is missing",
        "the page has no shape and no connection",
    )


# -------------------------------------------------------------------------------- running Python

PLOT = "import matplotlib.pyplot as plt\nplt.bar(['a', 'b'], [1, 2], color='red')\nplt.show()\n"


@needs_matplotlib
def test_a_chart_is_drawn_only_when_asked_for(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = f"open({str(marker)!r}, 'w').close()\n{PLOT}"
    model = FakeGenerator([f"```python\n{source}```"] * 2)
    assert code(model, page(), "matplotlib").rendering is None and not marker.exists()
    made = code(model, page(), "matplotlib", run=True)
    assert marker.exists() and made.rendering is not None and made.rendering.size == (640, 480)
    colours = made.rendering.getcolors(1 << 20) or []
    assert max(n for n, value in colours if value == (255, 0, 0)) > 10000
    assert made.similarity is not None


@needs_matplotlib
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("x = bytearray(10 << 30)", "MemoryError"),
        ("open('x', 'wb').write(b'0' * (200 << 20))", "File too large"),
        ("print('no figure')", "left no figure"),
    ],
)
def test_code_that_fails_or_takes_too_much(source: str, told: str) -> None:
    with pytest.raises(RenderError, match=told):
        run_python(source, seconds=60)


@needs_matplotlib
def test_endless_code_is_stopped() -> None:
    with pytest.raises(RenderError, match=r"not done after 1\.5 s"):
        run_python("while True: pass", seconds=1.5)


@needs_matplotlib
def test_code_reaches_no_network_or_it_is_said() -> None:
    """The exit of the code says what it saw: a refused connection would mean that loopback was in reach."""
    source = "import socket\nsocket.create_connection(('127.0.0.1', 9), 2)\n"
    with pytest.raises(RenderError) as caught:
        run_python(source, seconds=60)
    cut = bool(coding_python._cut_network())
    assert ("unreachable" in str(caught.value)) == cut


def test_the_program_recorded_is_read() -> None:
    model = FakeGenerator(f"```python\n{answer('mmcode_16_solution')}\n```")
    assert code(model, page(), "matplotlib").source == answer("mmcode_16_solution")
