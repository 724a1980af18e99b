"""JSON with slips of the pen: what is read, what is said about it, and that nothing crashes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.errors import ParseError
from qwen3vl.tasks.parsing_json import read_json
from qwen3vl.tasks.parsing_reader import Reader
from tests.unit.tasks.recorded import NAMES, answer

leaves = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
trees = st.recursive(
    leaves | st.text(), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
containers = st.dictionaries(st.text(), trees, min_size=1, max_size=5)


@given(containers, st.sampled_from([None, 1, "\t"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_sound_json_is_read_exactly(value: Any, indent: Any, fenced: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if "```" in text or "\\" in text:
        return
    read = read_json(f"```json\n{text}\n```" if fenced else text)
    assert read.value == value and read.complete and not read.notes


words = st.text("abc xyz-é中/", min_size=1, max_size=8).map(str.strip).filter(bool)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | words,
    lambda i: st.lists(i, max_size=3) | st.dictionaries(words, i, max_size=3),
)


class Lenient(Reader):
    def flawless(self, values: list[Any]) -> bool:
        return False


@given(st.dictionaries(words, plain, min_size=1, max_size=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_lenient_reader_agrees_with_json_and_with_python(value: Any, python: bool) -> None:
    reader = Lenient(repr(value) if python else json.dumps(value, ensure_ascii=False))
    assert reader.item(0, "item") == [value]
    assert not reader.cut


SLIPS = [
    ('[{"a": 1}, {{"a": 2}, {"a": 3}]', [{"a": 1}, {"a": 2}, {"a": 3}], "opened twice"),
    ('[{"a": 1}, {{"a": 2}}, {"a": 3}]', [{"a": 1}, {"a": 2}, {"a": 3}], "opened twice"),
    ('[{"a": 1}, {\n{"a": 2},\n{"a": 3}\n]', [{"a": 1}, {"a": 2}, {"a": 3}], "opened twice"),
    ('{{{{"a": 1}}}}', {"a": 1}, "opened twice"),
    ('[{"a": 1, {"a": 2}]', [{"a": 1}, {"a": 2}], "not closed"),
    ('[{"a": 1, "b": 2, "a": 3, "b": 4}]', [{"a": 1, "b": 2}, {"a": 3, "b": 4}], "not closed"),
    ('[{"a": {"x": 1, "y": 2}, {"a": {"x": 3}}]', [{"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}], "not closed"),
    ('[{"a": 1}}, {"a": 2}]', [{"a": 1}, {"a": 2}], "too many"),
    ('[{"a": [1, 2]], "b": 3}]', [{"a": [1, 2], "b": 3}], "too many"),
    ('[{"a": 1}], {"a": 2}]', [{"a": 1}, {"a": 2}], "one list"),
    ('[{"a": 1}\n{"a": 2}]', [{"a": 1}, {"a": 2}], None),
    ('{"a": "x"], {"a": "y"}]', [{"a": "x"}, {"a": "y"}], "not closed"),
    ('"a": [1], "b": "x"}, {"a": [2], "b": "y"}]', [{"a": [1], "b": "x"}, {"a": [2], "b": "y"}], "opening brace"),
    ('["a": [1], "b": "x"}, {"a": [2], "b": "y"}]', [{"a": [1], "b": "x"}, {"a": [2], "b": "y"}], "opening brace"),
    ('{"a": [1, 2, "b": 3}', {"a": [1, 2], "b": 3}, "list was not closed"),
    ('[{"a": [1, 2}, {"a": [3]}]', [{"a": [1, 2]}, {"a": [3]}], "list was not closed"),
    ('[{"a": [1, 2}, "b": "c"}]', [{"a": [1, 2], "b": "c"}], "with a brace"),
    ('{"a": "x" "b": 2}', {"a": "x", "b": 2}, None),
    ('{"a": 1,, "b": 2,}', {"a": 1, "b": 2}, None),
    ("{'a': 'it's', 'b': None, 'c': (1, 2), 'd': True}", {"a": "it's", "b": None, "c": [1, 2], "d": True}, "escaped"),
    ("{a: [1 2 3], label: red car}", {"a": [1, 2, 3], "label": "red car"}, "without quotes"),
    ('{"a" [1, 2]}', {"a": [1, 2]}, "colon"),
    ('{"a": “x”， “b”： 2}', {"a": "x", "b": 2}, None),
    ('{"a": x", "b": 1}', {"a": "x", "b": 1}, None),
    ('{"a": "x"", "b": 1}', {"a": "x", "b": 1}, "quote too many"),
    ('[{"a": "x}, {"a": "y"}]', [{"a": "x"}, {"a": "y"}], "string was not closed"),
    ('{"text": "He said "yes", then left", "n": 1}', {"text": 'He said "yes", then left', "n": 1}, "not escaped"),
    ('[{"a": 1}, ...]', [{"a": 1}], "ellipsis"),
    ('{"a": 1 /* one */, // two\n "b": 2}', {"a": 1, "b": 2}, None),
    ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}], "one list"),
    ('First:\n```json\n[{"a": 1}]\n```\nthen\n```\n[{"a": 2}]\n```', [{"a": 1}, {"a": 2}], "one list"),
    ('As [1] says, {"a": 1} it is.', {"a": 1}, "passed over"),
    ('{"t": "\\frac{a}{b} \\alpha\\n\\u4e2d \\ud83d\\ude00"}', {"t": "\\frac{a}{b} \\alpha\n中 😀"}, None),
    ('{"t": "a\nb"}', {"t": "a\nb"}, None),
]


@pytest.mark.parametrize(("text", "value", "note"), SLIPS)
def test_slips_are_mended_and_said(text: str, value: Any, note: str | None) -> None:
    read = read_json(text)
    assert read.value == value
    assert read.complete and read.raw == text
    assert note is None or any(note in n for n in read.notes), read.notes


CUTS = [
    ('[{"a": [1, 2]}, {"a": [3, 40', [{"a": [1, 2]}, {"a": [3]}], "digits may be missing"),
    ('[{"a": 1}, {"a": "half a te', [{"a": 1}, {"a": "half a te"}], "inside the text"),
    ('[{"a": 1}, {"a": "x", "b', [{"a": 1}, {"a": "x"}], "ends inside"),
    ('[{"a": 1}, {"a":', {"a": 1}, "before the value"),
    ('```json\n[{"a": 1},\n', [{"a": 1}], "ends inside"),
]


@pytest.mark.parametrize(("text", "value", "note"), CUTS)
def test_cut_answers_keep_what_is_whole(text: str, value: Any, note: str) -> None:
    read = read_json(text)
    assert (read.value if isinstance(read.value, list) else [read.value]) == (
        value if isinstance(value, list) else [value]
    )
    assert not read.complete and any(note in n for n in read.notes)


@pytest.mark.parametrize("text", ["", "none at all", "```json\n```", "1 < 2"])
def test_no_json_is_an_error_that_keeps_the_answer(text: str) -> None:
    with pytest.raises(ParseError) as caught:
        read_json(text)
    assert caught.value.raw == text


@pytest.mark.parametrize(
    "text", ["[" * 50000, "{" * 50000, '{"a":' * 20000, "[{" * 20000, '"' * 9999 + "[", "9" * 9999]
)
def test_loops_of_brackets_end(text: str) -> None:
    with contextlib.suppress(ParseError):
        assert not read_json(text).complete


@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_damaged_answers_never_crash(name: str, random: Any) -> None:
    text = list(answer(name)[:1500])
    for _ in range(random.randint(1, 12)):
        at = random.randrange(len(text))
        action = random.choice("drir")
        if action == "d":
            del text[at : at + random.randint(1, 4)]
        elif action == "i":
            text.insert(at, random.choice("{}[]()\",:\\'\n`<>/=“”，：-0.eu"))
        else:
            text[at] = random.choice("{}[]()\",:\\'\n`<>/=“”，：-0.eu")
        text = text or ["{"]
    with contextlib.suppress(ParseError):
        read_json("".join(text))
