"""StopChecker against a reference that sees the whole text at once."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.stopping import StopChecker, longest_overlap
from qwen3vl.types import SamplingParams


def stream(checker: StopChecker, pieces: list[str], tail: str = "") -> list[str]:
    """What is shown token by token; token number i has id i."""
    shown = []
    for token_id, text in enumerate(pieces):
        shown.append(checker.push(token_id, "" if checker.ends_at(token_id) else text))
        if checker.finish_reason is not None:
            break
    return [*shown, checker.close(tail)]


def reference(pieces: list[str], tail: str, stops: tuple[str, ...], min_tokens: int) -> tuple[str, str | None]:
    """The answer and its stop string, from the whole text, character by character."""
    text = "".join(pieces) + tail
    floor = len("".join(pieces[: max(0, min_tokens - 1)]))
    for end in range(floor + 1, len(text) + 1):
        hits = [stop for stop in stops if text[:end].endswith(stop)]
        if hits:
            longest = max(hits, key=len)
            return text[: end - len(longest)], longest
    return text, None


letters = st.text("ab\n<", max_size=4)


@settings(max_examples=700, deadline=None)
@given(
    st.lists(letters, max_size=12),
    letters,
    st.lists(st.text("ab\n<", min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(0, 6),
)
def test_any_split_shows_what_the_whole_text_would(
    pieces: list[str], tail: str, stops: list[str], min_tokens: int
) -> None:
    min_tokens = min(min_tokens, len(pieces))
    checker = StopChecker(SamplingParams(stop=tuple(stops), min_tokens=min_tokens))
    shown = "".join(stream(checker, pieces, tail))
    expected, stop = reference(pieces, tail, tuple(stops), min_tokens)
    assert (shown, checker.stop_reason) == (expected, stop)
    assert (checker.finish_reason == "stop") == (stop is not None)


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_more_is_held_back_than_needed(text: str, stops: list[str]) -> None:
    """All but the longest end that could begin a stop string is shown at once."""
    checker = StopChecker(SamplingParams(stop=tuple(stops)))
    shown = ""
    for i, letter in enumerate(text):
        shown += checker.push(i, letter)
        if checker.finish_reason is not None:
            return
        held = (text[: i + 1])[len(shown) :]
        assert text[: i + 1] == shown + held
        assert held == "" or any(s.startswith(held) and s != held for s in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "expected", "reason"),
    [
        (["Hello, ", "wor", "ld. EN", "D more"], ("END",), "Hello, world. ", "END"),
        (["xabc"], ("abc", "b"), "xa", "b"),
        (["xab"], ("b", "ab"), "x", "ab"),
        (["a", "a", "b", "ab"], ("aab",), "", "aab"),
        (["aa", "ab"], ("aab",), "a", "aab"),
        (["ab", "a"], ("abab",), "aba", None),
        (["日", "本"], ("本",), "日", "本"),
    ],
)
def test_examples(pieces: list[str], stops: tuple[str, ...], expected: str, reason: str | None) -> None:
    checker = StopChecker(SamplingParams(stop=stops))
    assert "".join(stream(checker, pieces)) == expected
    assert checker.stop_reason == reason


def test_end_tokens() -> None:
    checker = StopChecker(SamplingParams(stop=("zz",)), eos_ids=[2])
    assert stream(checker, ["a", "bz", "<eos>", "never"], "!") == ["a", "b", "", "z!"]
    assert (checker.finish_reason, checker.stop_reason, checker.num_tokens) == ("stop", 2, 3)

    ignoring = StopChecker(SamplingParams(ignore_eos=True, stop_token_ids=(3,)), eos_ids=[2])
    assert "".join(stream(ignoring, ["a", "b", "c", "d"])) == "abc"
    assert (ignoring.finish_reason, ignoring.stop_reason) == ("stop", 3)


def test_end_tokens_count_only_after_min_tokens() -> None:
    for eos, text in ((2, "abcd"), (3, "abc")):
        checker = StopChecker(SamplingParams(min_tokens=3), eos_ids=[eos])
        assert "".join(stream(checker, ["a", "b", "c", "d"])) == text


def test_max_tokens_and_the_room_in_the_context() -> None:
    for mine, room in ((2, None), (None, 2), (2, 9), (9, 2)):
        checker = StopChecker(SamplingParams(max_tokens=mine, stop=("bx",)), max_tokens=room)
        assert "".join(stream(checker, ["a", "b", "c"])) == "ab"
        assert (checker.finish_reason, checker.stop_reason) == ("length", None)


def test_a_stop_wins_over_the_length() -> None:
    by_token = StopChecker(SamplingParams(max_tokens=2), eos_ids=[1])
    stream(by_token, ["a", "b"])
    by_text = StopChecker(SamplingParams(max_tokens=2, stop=("b",)))
    stream(by_text, ["a", "b"])
    by_tail = StopChecker(SamplingParams(max_tokens=2, stop=("b!",)))
    assert stream(by_tail, ["a", "b"], "!") == ["a", "", ""]
    assert [c.finish_reason for c in (by_token, by_text, by_tail)] == ["stop"] * 3
    assert [c.stop_reason for c in (by_token, by_text, by_tail)] == [1, "b", "b!"]


def test_an_ended_answer_takes_no_more_tokens() -> None:
    checker = StopChecker(SamplingParams(max_tokens=1))
    checker.push(0, "a")
    with pytest.raises(AssertionError):
        checker.push(1, "b")


@given(st.text("ab<", max_size=9), st.text("ab<", min_size=1, max_size=6))
def test_longest_overlap(text: str, tag: str) -> None:
    expected = max(n for n in range(len(tag)) if n == 0 or (n <= len(text) and text[-n:] == tag[:n]))
    assert longest_overlap(text, tag) == expected
    assert longest_overlap("so </th", "</think>") == 4
    assert longest_overlap("aab", "abab") == 2


def test_text_without_stop_strings_is_never_held() -> None:
    checker = StopChecker(SamplingParams())
    pieces = ["<", "think", ">", "a"]
    assert list(accumulate(stream(checker, pieces)))[:4] == list(accumulate(pieces))
