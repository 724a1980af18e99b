"""The code in an answer."""

from __future__ import annotations

import pytest

from qwen3vl.errors import ParseError
from qwen3vl.tasks.coding_source import read_source
from tests.unit.tasks.recorded import answer

PAGE = "<!DOCTYPE html>\n<html><body>one</body></html>"
OTHER = PAGE.replace("one", "two")
FILE = '<mxfile><diagram><mxGraphModel><root><mxCell id="0"/></root></mxGraphModel></diagram></mxfile>'


def test_the_recorded_page_fenced_bare_and_cut() -> None:
    page = answer("mmcode_5_html")
    fenced = read_source(f"Here it is:\n\n```html\n{page}\n```\nIt has a header.", "html")
    assert (fenced.text, fenced.notes, fenced.complete) == (page, (), True)
    bare = read_source(f"Sure.\n{page}\nDone.", "html")
    assert bare.text == page and bare.complete and bare.notes == ("the code stood in no block",)
    cut = read_source(f"```html\n{page[:-200]}", "html")
    assert cut.text == page[:-200].rstrip() and not cut.complete and "cut off" in cut.notes[0]


def test_the_recorded_program() -> None:
    program = answer("mmcode_16_solution")
    found = read_source(f"Think.\n```python\nprint(1)\n```\nBetter:\n```python\n{program}\n```", "matplotlib")
    assert found.text == program and found.complete
    assert found.notes == ("2 blocks of code: the last one was taken",)


def test_the_last_block_counts() -> None:
    found = read_source(f"```html\n{PAGE}\n```\nShorter:\n```html\n{OTHER}\n```\n```css\nb {{}}\n```", "html")
    assert found.text == OTHER
    assert read_source(f"{PAGE}\nor\n{OTHER}", "html").text == OTHER


def test_reasoning_is_left_out() -> None:
    with pytest.raises(ParseError):
        read_source(f"<think>```html\n{PAGE}\n```</think>I cannot.", "html")


def test_a_fence_inside_the_page_does_not_end_it() -> None:
    page = "<html><body><pre>\n```\ncode\n```\n</pre></body></html>"
    found = read_source(f"```html\n{page}\n```", "html")
    assert found.text == page and found.complete and "fence of its own" in found.notes[0]


@pytest.mark.parametrize("fence", ["xml", "drawio", "", "mxfile"])
def test_drawio_under_any_name(fence: str) -> None:
    assert read_source(f"```{fence}\n{FILE}\n```", "drawio").text == FILE
    assert read_source(f"Here: {FILE} and so on", "drawio").text == FILE


def test_svg_and_xml_are_told_apart() -> None:
    svg = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><svg><svg/></svg></svg>'
    text = f"```xml\n{svg}\n```\n```xml\n{FILE}\n```"
    assert read_source(text, "svg").text == svg
    assert read_source(text, "drawio").text == FILE
    assert read_source(f"Look: {svg}.", "svg").text == svg


def test_a_page_without_html_tags_is_taken_from_its_block() -> None:
    assert read_source("```html\n<h1>Hi</h1>\n```", "html").text == "<h1>Hi</h1>"


def test_no_code_is_an_error_that_keeps_the_answer() -> None:
    with pytest.raises(ParseError, match="no html code") as caught:
        read_source("I see a cat.", "html")
    assert caught.value.raw == "I see a cat."
    with pytest.raises(ParseError, match="no drawio code"):
        read_source("```xml\n<note/>\n```", "drawio")


def test_unfenced_python_is_taken_from_its_first_import() -> None:
    found = read_source("Code:\nimport numpy as np\nimport matplotlib.pyplot as plt\nplt.plot([1])", "matplotlib")
    assert found.text.startswith("import numpy") and "no block" in found.notes[0]
