"""Documents, tables, times and final answers: the recordings, the documented forms, and cuts anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.errors import ParseError
from qwen3vl.tasks.coordinates import RelativeBox
from qwen3vl.tasks.parsing import (
    Event,
    Table,
    code_blocks,
    final_answer,
    final_choice,
    html_table,
    latex_table,
    markdown_table,
    parse_range,
    parse_time,
    read_events,
    read_html,
    read_markdown,
)
from qwen3vl.tasks.parsing_answers import options_of
from tests.unit.tasks.recorded import answer, recorded


def test_recorded_html() -> None:
    page = read_html(answer("docparse_html"))
    assert len(page.blocks) == 41 and page.complete and not page.notes
    assert [b.kind for b in page.blocks[:5]] == ["image"] * 4 + ["text"]
    assert page.blocks[0].box == RelativeBox(104, 29, 455, 75)
    assert page.blocks[4].text == "宇通客车 (600066)"
    assert page.blocks[-1].text == "汽车和汽车零部件\n2017 年 08 月 05 日"
    first, second = (b.table for b in page.blocks if b.table)
    assert first.rows[2] == ("大股东/持股", "宇通集团/37.19%") and len(first.rows) == 10 and first.header_rows == 0
    assert second.rows[0] == ("", "2015A", "2016A", "2017E", "2018E", "2019E") and second.header_rows == 1
    assert second.rows[-1] == ("P/B(倍)", "3.8", "3.6", "3.1", "2.7", "2.3") and len(second.rows) == 11


def test_html_cut_anywhere_keeps_every_whole_block() -> None:
    text = answer("docparse_html")
    whole = read_html(text).blocks
    for cut in range(0, len(text), 7):
        expected = text[:cut].count("</div>")
        page = read_html(text[:cut])
        assert page.blocks[:expected] == whole[:expected], cut
        assert len(page.blocks) <= expected + 1


def test_html_with_all_its_tags() -> None:
    page = read_html(
        '<html><body>\n<h2 data-bbox="1 2 3 4">T & <b>x</b></h2><p data-bbox="1 2 3 4">a<b and c>d &amp; e</p>'
        '<ol data-bbox="0 0 1 1"><li data-bbox="1 1 2 2">one</li><li data-bbox="2 2 3 3">two</li></ol>'
        '<div class="image caption" data-bbox="1 1 1 1"><img data-bbox="1 2 3 4"/><p>cap</p></div>'
        '<div class="formula" data-bbox="1 2 3 4"><img data-bbox="1 2 3 4"/><div>E=mc^2</div></div>'
        '<div class="chart" format="csv" data-bbox="1 1 2 2"><img/><table><tr><td>a<td>b</table></div>'
        '<div class="formula.handwritten" data-polygon="1 2 9 2 9 8 1 8">x</div>'
        '<div class="music sheet" format="abc notation" data-bbox="1 2 3 4">X:1</div>'
        '<div class="chemical formula" format="smile" data-bbox="1 2 3 4">CCO</div>'
        '<table data-bbox="1 2 3 4" class="table"><tr><th>h</th></tr></table>'
        '<img data-bbox="5 5 6 6"/>loose<div class="text" data-bbox="9 9" style="color:red">unplaced</div>'
        "</body></html>"
    )
    kinds = [b.kind for b in page.blocks]
    assert kinds == [
        *("heading", "text", "list item", "list item", "caption", "formula", "chart", "formula", "music", "chemistry"),
        *("table", "image", "text", "text"),
    ]
    texts = [b.text for b in page.blocks]
    assert texts[:6] == ["T & x", "a<b and c>d & e", "one", "two", "cap", "E=mc^2"]
    assert page.blocks[0].level == 2 and page.blocks[6].format == "csv" and page.blocks[6].text == "a,b\n"
    assert page.blocks[7].box == RelativeBox(1, 2, 9, 8)
    assert page.blocks[10].table == Table((("h",),), 1)
    assert texts[-2:] == ["loose", "unplaced"] and page.blocks[-1].box is None
    assert page.complete and len(page.notes) == 1 and "2 numbers" in page.notes[0]


MARKDOWN = r"""```markdown
# Title
intro $x$ text
more

<!-- Image (10, 20, 300, 400) -->

<!-- Table (1, 2, 3, 4) -->
\begin{tabular}{|l|l|}
\hline
a & \textbf{b} \\ \hline
c & d \\ \hline
\end{tabular}

| a | b |
| --- | --- |
| 1 | 2 |

$$E=mc^2$$
## Sub
end
<!-- Table (5, 6, 7, 8) -->
```"""


def test_markdown_with_all_its_marks() -> None:
    page = read_markdown(MARKDOWN)
    assert [b.kind for b in page.blocks] == [
        *("heading", "text", "image", "table", "table", "formula", "heading", "text", "table"),
    ]
    assert page.blocks[1].text == "intro $x$ text\nmore"
    assert page.blocks[2].box == RelativeBox(10, 20, 300, 400)
    assert page.blocks[3].box == RelativeBox(1, 2, 3, 4)
    assert page.blocks[3].table == Table((("a", "b"), ("c", "d")))
    assert page.blocks[4].table == Table((("a", "b"), ("1", "2")), 1) and page.blocks[4].box is None
    assert page.blocks[6].level == 2 and page.blocks[8].box == RelativeBox(5, 6, 7, 8)
    assert page.complete and not page.notes


def test_markdown_cut_anywhere_keeps_the_words() -> None:
    for cut in range(len(MARKDOWN)):
        page = read_markdown(MARKDOWN[:cut])
        text = " ".join(b.text for b in page.blocks)
        if cut > MARKDOWN.index("more") + 4:
            assert "intro $x$ text\nmore" in text
        if cut > MARKDOWN.index("\\end{"):
            assert page.blocks[3].table == Table((("a", "b"), ("c", "d")))


def test_recorded_markdown_table() -> None:
    page = read_markdown(answer("video_11_table"))
    assert [b.kind for b in page.blocks] == ["table"]
    table = page.blocks[0].table
    assert table and len(table.rows) == 9 and table.rows[0] == ("特点", "描述") and table.header_rows == 1


def test_spans() -> None:
    latex = r"""\begin{tabular}{|l|c|r|} \hline
      \multirow{2}{*}{\textbf{A}} & \multicolumn{2}{c|}{B \& C} \\ \cline{2-3}
      & d & e \\ \hline f & $x_1$ & {g & h} \\ \end{tabular}"""
    want = (("A", "B & C", "B & C"), ("A", "d", "e"), ("f", "$x_1$", "{g & h}"))
    assert latex_table(latex).rows == want
    markup = (
        '<table><tr><td rowspan="2">A<td colspan=2>B &amp; C</tr><tr><td>d</td><td>e</td></tr>'
        "<tr><td>f<td>$x_1$<td>{g & h}"
    )
    assert html_table(markup).rows == want
    assert html_table("<tr><td rowspan=9999 colspan=9999>x").rows == (("x",) * 200,)


cells = st.text("ab1 |&<>\\,\"'éß中", max_size=6).map(str.strip)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[cells] * n), min_size=2, max_size=4)))
@settings(max_examples=60, deadline=None)
def test_tables_go_out_and_come_back(rows: list[tuple[str, ...]]) -> None:
    table = Table(tuple(rows), 1)
    assert html_table(table.to_html()) == table
    clean = Table(tuple(tuple(c.replace("\\", "").strip() for c in row) for row in rows), 1)
    assert markdown_table(clean.to_markdown()) == clean
    assert clean.to_csv().count("\n") == len(rows)
    if any(map(any, clean.rows)):
        assert latex_table(clean.to_latex()).rows == tuple(r for r in clean.rows if len(r) > 1 or r[0])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:23.50", 23.5),
        ("01:02:03", 3723),
        ("01:02:03.25", 3723.25),
        ("12.5", 12.5),
        ("12.5s", 12.5),
        ("<12.5 seconds>", 12.5),
        ("1m30s", 90),
        ("1h 2m 3s", 3723),
        ("90:00", 5400),
        (7, 7),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("00:23.00 - 00:48.00", (23, 48)),
        ("12.5s to 14s", (12.5, 14)),
        ("12.5 – 14.5 seconds", (12.5, 14.5)),
        ([1, "00:02"], (1, 2)),
        ("<1.0 seconds> - <2.0 seconds>", (1, 2)),
        ({"start_time": "00:01", "end_time": 3}, (1, 3)),
        ("00:10", (10, 10)),
    ],
)
def test_ranges(value: object, span: tuple[float, float]) -> None:
    assert parse_range(value) == span


@pytest.mark.parametrize("value", ["noon", "", None, "1:2:3:4", [1, 2, 3]])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ParseError):
        parse_time(value)


def test_recorded_events() -> None:
    events = read_events(answer("video_13_dense_events"))
    assert len(events.items) == 9 and events.complete and not events.notes
    assert events.items[0] == Event(23, 48, "trim the fat off a piece of beef.")
    assert events.items[-1] == Event(195, 200, "slice the beef against the grain.")


def test_events_cut_anywhere() -> None:
    text = answer("video_13_dense_events")
    whole = read_events(text).items
    for cut in range(0, len(text), 7):
        expected = text[:cut].count('.",') + text[:cut].count('."\n')
        try:
            events = read_events(text[:cut])
        except ParseError:
            assert expected == 0
            continue
        assert events.items[:expected] == whole[:expected]
        assert len(events.items) == expected or not events.complete


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ('{"events":[{"start_time":"00:00:01","end_time":"00:00:05","event":"a"}]}', [Event(1, 5, "a")]),
        ('[{"timestamp": "00:01 - 00:03", "description": "x"}]', [Event(1, 3, "x")]),
        ('{"00:01 - 00:03": "a", "00:01 - 00:03": "b"}', [Event(1, 3, "a"), Event(1, 3, "b")]),
        ('{"start": 3.5, "end": 7}', [Event(3.5, 7, "")]),
        ("**00:05 – 00:09** The cat jumps.\n- [01:00] rain", [Event(5, 9, "The cat jumps."), Event(60, 60, "rain")]),
        ("The goal falls at 12.5s.", [Event(12.5, 12.5, "The goal falls at 12.5s.")]),
        ('{"start_time": "00:01", "end_time": "00:0', []),
        ("[]", []),
    ],
)
def test_forms_of_events(text: str, events: list[Event]) -> None:
    assert list(read_events(text).items) == events


def test_looping_events_are_cut_and_counted() -> None:
    events = read_events("{" + '"00:01 - 00:02": "a", "00:02 - 00:03": "b", ' * 30)
    assert len(events.items) == 2 and events.repeats == 58


@pytest.mark.parametrize(("name", "letter"), [("spatial_8", "C"), ("spatial_14", "B"), ("spatial_18_video", "C")])
def test_recorded_choices(name: str, letter: str) -> None:
    record = recorded(name)
    assert final_choice(record["output"], options_of(record["prompt"])) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("**Answer: D. D.**", "D"),
        ("The answer is (C).", "C"),
        ("B", "B"),
        ("\\boxed{B}", "B"),
        ("答案是B", "B"),
        ("Therefore, **D**", "D"),
        ("<think>A?</think>Correct answer: B", "B"),
        ("I think so", None),
        ("The answer is a cat", None),
        ("A cat sits here.", None),
        ("A. x\nB. y\nC. z", None),
        ("", None),
    ],
)
def test_choices(text: str, letter: str | None) -> None:
    assert final_choice(text) == letter


def test_final_answers_and_code() -> None:
    assert final_answer("so \\boxed{\\frac{1}{2}} it is") == "\\frac{1}{2}"
    assert final_answer("First ...\n\n**Answer: 42**") == "42"
    assert final_answer("42") == "42"
    assert final_answer("line\nline") is None
    assert code_blocks("a\n```python\nx = 1\n```\nb\n```html\n<p>") == [("python", "x = 1"), ("html", "<p>")]


@given(st.text('<>/="|-! divtablebox1 2\n\\&{}$#', max_size=200))
@settings(max_examples=150, deadline=None)
def test_no_document_crashes(text: str) -> None:
    assert read_html(text).raw == text and read_markdown(text).raw == text
