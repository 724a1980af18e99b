"""What people see: the answer as it comes, receipts and timings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from qwen3vl.types import Completion, Delta, MediaReceipt

_DIM, _PLAIN = "\x1b[2m", "\x1b[22m"
# An answer can repeat what is written in a picture: on a terminal it must not move the cursor or set titles.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOST_TIMES = 8  # times of a video that are listed; of more, the first and last ones


class Screen:
    """Writes answers to stdout as they come, and reasoning, dimmed, to stderr.

    Args:
        show_reasoning: None shows it where stderr is a terminal.
        silent: write nothing (--json).
    """

    def __init__(self, show_reasoning: bool | None = None, silent: bool = False) -> None:
        self.silent = silent
        self._reasoning = not silent and (sys.stderr.isatty() if show_reasoning is None else show_reasoning)
        self._last = "\n"
        self._dimmed = False

    def shows(self, delta: Delta) -> bool:
        """Whether `delta` will write something."""
        return bool(not self.silent and (delta.text or (delta.reasoning and self._reasoning)))

    def show(self, delta: Delta) -> None:
        if delta.reasoning and self._reasoning:
            if not self._dimmed and sys.stderr.isatty():
                sys.stderr.write(_DIM)
            self._dimmed = True
            _write(sys.stderr, delta.reasoning)
        if delta.text and not self.silent:
            self._end_reasoning()
            _write(sys.stdout, delta.text)
            self._last = delta.text[-1]

    def end(self) -> None:
        """End the answer's last line."""
        self._end_reasoning()
        if self._last != "\n":
            _write(sys.stdout, "\n")
        self._last = "\n"

    def _end_reasoning(self) -> None:
        if self._dimmed:
            _write(sys.stderr, "\n\n")
            if sys.stderr.isatty():
                sys.stderr.write(_PLAIN)
                sys.stderr.flush()
        self._dimmed = False


def tell(line: str) -> None:
    """Say something that is not the answer: on stderr."""
    _write(sys.stderr, line + "\n")


def _write(stream: TextIO, text: str) -> None:
    stream.write(_CONTROL.sub(lambda c: f"\\x{ord(c[0]):02x}", text) if stream.isatty() else text)
    stream.flush()


def cut_note(completion: Completion) -> str | None:
    """What to say of an answer that was not finished."""
    num_tokens = completion.usage.completion_tokens
    if completion.first.stop_reason == "repetition":
        return f"note: the answer repeated itself and was ended after {num_tokens} tokens (see --loop-guard)"
    if completion.finish_reason != "length":
        return None
    return f"note: the answer was cut after {num_tokens} tokens (see --max-tokens)"


def receipt_lines(completion: Completion) -> Iterator[str]:
    """What the model saw and where tokens and time went, for people."""
    for receipt in completion.receipts:
        yield from _media_lines(receipt)
    usage, times = completion.usage, completion.timings
    new = usage.prompt_tokens - usage.cached_tokens
    seen = [f"{n} of {kind}" for kind, n in (("pictures", usage.image_tokens), ("videos", usage.video_tokens)) if n]
    parts = f" ({', '.join(seen)})" if seen else ""
    reasoning = f" ({usage.reasoning_tokens} of reasoning)" if usage.reasoning_tokens else ""
    yield f"prompt {usage.prompt_tokens} tokens{parts}: read {new} new tokens, {usage.cached_tokens} from cache"
    yield f"answer {usage.completion_tokens} tokens{reasoning}, ended by {completion.finish_reason}{_why(completion)}"
    yield (
        f"time: prepare {times.prepare:.2f} s, vision {times.vision:.2f} s, "
        f"prefill {times.prefill:.2f} s{_rate(new, times.prefill)}, "
        f"decode {times.decode:.2f} s{_rate(usage.completion_tokens, times.decode)}"
    )


def _media_lines(receipt: MediaReceipt) -> Iterator[str]:
    turned = {"image": f", orientation {receipt.orientation}", "video": f", rotated by {receipt.orientation}"}
    upright = receipt.orientation in (0, 1)
    length = "" if receipt.duration is None else f", {receipt.duration:.2f} s"
    yield (
        f"{receipt.source}: {_size(receipt.original_size)}{'' if upright else turned[receipt.kind]}{length}"
        f" -> {_size(receipt.resized_size)}, grid {_size(receipt.grid_thw)}, {receipt.num_tokens} tokens"
        f"{f', from the {receipt.cache} cache' if receipt.cache else ''}"
    )
    if receipt.frame_times:
        times = tuple(dict.fromkeys(receipt.frame_times))
        twice = ", the last one twice" if len(times) < len(receipt.frame_times) else ""  # an odd count
        yield f"  {len(times)} frames at {_times(times)} s{twice}"
    for note in receipt.notes:
        yield f"  note: {note}"


def _why(completion: Completion) -> str:
    return ": repetition" if completion.first.stop_reason == "repetition" else ""


def _times(times: Sequence[float]) -> str:
    shown = [f"{time:.2f}" for time in times]
    half = _MOST_TIMES // 2
    return " ".join(shown if len(shown) <= _MOST_TIMES else [*shown[:half], "...", *shown[-half:]])


def _size(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _rate(tokens: int, seconds: float) -> str:
    return f" ({tokens / seconds:.1f} tokens/s)" if seconds > 0 else ""
