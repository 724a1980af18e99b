"""Reading keeps to its share of the time, and never stands still."""

from __future__ import annotations

import pytest

from qwen3vl.engine.pace import Pace


def simulate(
    share: float, *, decode: float = 0.1, token: float = 0.01, look: float = 0.0, steps: int = 400
) -> tuple[float, float, int, float]:
    """One step after the other, each as the pace allows. -> seconds decoding, reading, tokens read, longest step."""
    pace, decoding, reading, tokens, longest = Pace(share, 2048), 0.0, 0.0, 0, 0.0
    for step in range(steps):
        allowance = pace.allowance(num_streamed=4)
        looked = bool(look and allowance and step % 3 == 0)
        read = 0 if looked else allowance
        spent = token * read + look * looked
        pace.record(4, 4, read, looked, decode + spent)
        decoding, reading, tokens = decoding + decode, reading + spent, tokens + read
        longest = max(longest, decode + spent)
    return decoding, reading, tokens, longest


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("token", [0.0001, 0.001, 0.004])
def test_reading_takes_its_share(share: float, token: float) -> None:
    decoding, reading, _, longest = simulate(share, token=token)
    assert 0.7 * share <= reading / (decoding + reading) <= share + 0.02
    assert longest <= max(0.1 / (1 - share) * 1.1, 0.1 + 16 * token)  # no chunk is shorter than 16 tokens


def test_what_cannot_be_made_small_is_paid_for() -> None:
    """Pieces of the tower that take five steps of decoding, or tokens of which 16 take more than a step."""
    for decoding, reading, _, _ in (simulate(0.5, look=0.5), simulate(0.5, token=0.05)):
        assert 0.8 < reading / decoding < 1.05


def test_the_first_chunk_is_small() -> None:
    pace = Pace(0.5, 2048)
    assert pace.allowance(1) == 0  # what decoding takes is not known yet
    pace.record(1, 1, 0, False, 0.1)
    assert pace.allowance(1) == 16
    pace.record(1, 1, 16, False, 0.1001)  # next to nothing: they came along with the weights
    assert pace.allowance(1) == 32


def test_alone_reading_has_all() -> None:
    assert Pace(0.5, 2048).allowance(0) == 2048
    assert Pace(1.0, 2048).allowance(5) == 2048


def test_a_debt_is_forgotten_when_nobody_decodes() -> None:
    pace = Pace(0.5, 2048)
    pace.record(1, 1, 0, False, 0.1)
    pace.record(1, 1, 16, False, 50.0)
    assert pace.allowance(1) == 0
    pace.record(0, 0, 2048, False, 1.0)
    assert pace.allowance(1) > 0


def test_only_streamed_answers_are_protected() -> None:
    """Six answers grow. While nobody reads along, reading has all; then one of them is streamed."""
    pace = Pace(0.5, 2048)
    pace.record(6, 0, 0, False, 0.1)
    for looked in (False, True, False):
        assert pace.allowance(0) == 2048
        pace.record(6, 0, 2048, looked, 0.1 + 20.0)
    assert pace.allowance(1) == 16  # reading that nobody waited for is no debt
    pace.record(6, 1, 16, False, 0.1 + 0.16)
    assert pace.allowance(1) == 0
    assert pace.allowance(0) == 2048


def test_faster_decoding_is_noticed() -> None:
    """Half of the answers end: chunks that fitted before are too long now."""
    pace = Pace(0.5, 2048)
    for step in range(200):
        decode = 0.2 if step < 100 else 0.05
        read = pace.allowance(4)
        pace.record(4, 4, read, False, decode + 0.001 * read)
    assert 30 < pace.allowance(4) <= 70 or pace.allowance(4) == 0
    assert max(pace.allowance(4), 0) <= 70
