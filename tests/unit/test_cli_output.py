"""What the command line shows, with and without a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from qwen3vl.cli.failures import expected
from qwen3vl.cli.output import Screen, cut_note, receipt_lines, tell
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import ConfigError
from qwen3vl.types import Choice, Completion, Delta, MediaReceipt, Timings, Usage


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


Streams = Callable[[], tuple[Stream, Stream]]


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def streams(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Streams:
    """To be called inside the test: pytest's own capturing begins after the fixtures."""

    def swap() -> tuple[Stream, Stream]:
        out, err = Stream(request.param), Stream(request.param)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("TERM", "xterm")
        return out, err

    return swap


def show(screen: Screen, *deltas: Delta) -> None:
    for delta in deltas:
        screen.show(delta)
    screen.end()


def test_an_answer_cannot_drive_the_terminal(streams: Streams) -> None:
    out, _ = streams()
    show(Screen(), Delta("a\x1b]0;title\x07b\tc\n"), Delta("\x9b2J"))
    assert out.getvalue() == (
        "a\\x1b]0;title\\x07b\tc\n\\x9b2J\n" if out.isatty() else "a\x1b]0;title\x07b\tc\n\x9b2J\n"
    )


def test_reasoning_is_dimmed_on_a_terminal_only(streams: Streams) -> None:
    out, err = streams()
    deltas = (Delta(reasoning="hm, "), Delta(reasoning="so"), Delta("fine\n"))
    show(Screen(), *deltas)
    assert out.getvalue() == "fine\n"
    assert err.getvalue() == ("\x1b[2mhm, so\n\n\x1b[22m" if err.isatty() else "")
    show(Screen(show_reasoning=False), *deltas)
    assert err.getvalue().count("hm") == err.isatty()
    show(Screen(show_reasoning=True), *deltas)
    assert err.getvalue().count("hm") == err.isatty() + 1


def test_an_answer_stopped_within_its_reasoning_leaves_the_terminal_plain(streams: Streams) -> None:
    out, err = streams()
    show(Screen(show_reasoning=True), Delta(reasoning="hm"))
    assert err.getvalue() == ("\x1b[2mhm\n\n\x1b[22m" if err.isatty() else "hm\n\n")
    assert out.getvalue() == ""


def test_silent_writes_nothing(streams: Streams) -> None:
    out, err = streams()
    screen = Screen(show_reasoning=True, silent=True)
    show(screen, Delta("fine"), Delta(reasoning="hm"))
    assert (out.getvalue(), err.getvalue()) == ("", "")
    assert not screen.shows(Delta("fine"))


def test_a_bar_comes_only_on_a_terminal_and_leaves_no_trace(streams: Streams) -> None:
    _, err = streams()
    with Waiting("Preparing") as waiting:
        waiting.stage("vision", 1, 4)
        assert err.getvalue() == ""  # not for the first second
        waiting._show()
        waiting.stage("prefill", 3, 4)
    shown = err.getvalue()
    assert ("Looking" in shown and "Reading" in shown) == err.isatty()
    assert shown.endswith("\x1b[2K") or not err.isatty()
    waiting._show()  # a timer that fires late
    assert err.getvalue() == shown


def receipt(**changes: object) -> MediaReceipt:
    values = dict(kind="video", source="a.mp4", digest="", original_size=(640, 360), resized_size=(352, 640))
    values |= dict(grid_thw=(5, 40, 22), num_tokens=1100, orientation=90, duration=12.5)
    return MediaReceipt(**{**values, **changes})  # type: ignore[arg-type]


def test_receipt_of_a_video() -> None:
    times = (*(0.5 * i for i in range(9)), 4.0)
    seen = receipt(frame_times=times, frame_indices=tuple(range(10)), cache="prefix", notes=("cut at the end",))
    completion = Completion(
        (Choice("", "stop"),), Usage(1200, 30, 0, 1100, 1150, 20), (seen,), Timings(0.1, 0.2, 0.5, 1.5)
    )
    assert list(receipt_lines(completion)) == [
        "a.mp4: 640 x 360, rotated by 90, 12.50 s -> 352 x 640, grid 5 x 40 x 22, 1100 tokens, from the prefix cache",
        "  9 frames at 0.00 0.50 1.00 1.50 ... 2.50 3.00 3.50 4.00 s, the last one twice",
        "  note: cut at the end",
        "prompt 1200 tokens (1100 of videos): read 50 new tokens, 1150 from cache",
        "answer 30 tokens (20 of reasoning), ended by stop",
        "time: prepare 0.10 s, vision 0.20 s, prefill 0.50 s (100.0 tokens/s), decode 1.50 s (20.0 tokens/s)",
    ]


def test_tell_goes_to_stderr(streams: Streams) -> None:
    out, err = streams()
    tell("a\x1bb")
    assert out.getvalue() == ""
    assert err.getvalue() == ("a\\x1bb\n" if err.isatty() else "a\x1bb\n")


def test_mistakes_of_our_own_keep_their_traceback() -> None:
    class OutOfMemoryError(RuntimeError):
        """Named as torch's."""

    assert all(map(expected, (ConfigError(), OSError(), MemoryError(), OutOfMemoryError())))
    assert not any(map(expected, (KeyError(), RuntimeError(), AssertionError())))


def test_a_repetition_is_told() -> None:
    choice = Choice("a a a", "stop", stop_reason="repetition")
    completion = Completion((choice,), Usage(prompt_tokens=4, completion_tokens=1024))
    assert cut_note(completion) == "note: the answer repeated itself and was ended after 1024 tokens (see --loop-guard)"
    assert "answer 1024 tokens, ended by stop: repetition" in list(receipt_lines(completion))
