"""What is a loop and what is only a long table; and how an answer ends or goes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.answer import MOST_REWINDS, AnswerBuilder, Rewind
from qwen3vl.engine.loop_guard import EVIDENCE, LEAST_ROUNDS, LONGEST_ROUND, Loop, LoopGuard
from qwen3vl.engine.output import OutputSplitter, ThinkingBudget
from qwen3vl.engine.sampler import SampledToken
from qwen3vl.engine.stopping import StopChecker
from qwen3vl.errors import InvalidParams
from qwen3vl.processor.tokenizer import Tokenizer
from qwen3vl.types import Choice, Delta, SamplingParams
from tests import oracle


def first_loop(tokens: Iterable[int]) -> tuple[int, Loop] | None:
    """-> how many tokens it took, and the loop."""
    guard = LoopGuard()
    for count, token_id in enumerate(tokens, 1):
        guard.push(token_id)
        if (loop := guard.loop) is not None:
            return count, loop
    return None


# ------------------------------------------------------------------------------------------ the runs


def test_runs_by_hand() -> None:
    guard = LoopGuard()
    for token_id in (5, 6, 5, 6, 5):
        guard.push(token_id)
    assert guard._runs[:5].tolist() == [0, 3, 0, 1, 0]
    assert guard.num_repeated == 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=60))
def test_runs_are_what_they_say(tokens: list[int]) -> None:
    guard = LoopGuard()
    for token_id in tokens:
        guard.push(token_id)
    for distance in range(1, len(tokens)):
        pairs = zip(reversed(tokens), reversed(tokens[:-distance]), strict=False)
        run = next((i for i, (a, b) in enumerate(pairs) if a != b), len(tokens) - distance)
        assert guard._runs[distance - 1] == run, distance


def test_memory_is_bounded_and_the_window_slides() -> None:
    guard, noise = LoopGuard(), random.Random(1)
    tokens = [noise.randrange(10**6) for _ in range(LONGEST_ROUND)]
    for _ in range(4):
        for token_id in tokens:
            guard.push(token_id)
    assert guard._runs[LONGEST_ROUND - 1] == 3 * LONGEST_ROUND == guard.num_repeated
    assert len(guard._tokens) == 2 * LONGEST_ROUND
    assert guard.loop is None  # four rounds


# ----------------------------------------------------------------------------------- what is a loop


@pytest.mark.parametrize("period", [1, 2, 3, 7, 60, 128])
def test_a_round_of_different_tokens(period: int) -> None:
    """Found as soon as rounds x different tokens reach EVIDENCE, wherever in the answer it begins."""
    noise = random.Random(period)
    before = [noise.randrange(1000, 2000) for _ in range(777)]
    found = first_loop([*before, *list(range(period)) * 2000])
    rounds = -(-EVIDENCE // period)
    assert found == (777 + rounds * period, Loop(period, (rounds - 1) * period))


def test_the_numbers_of_the_explanation() -> None:
    sentence = [*range(45), *range(15)]  # 60 tokens, 45 of them different
    assert first_loop(sentence * 40) == (60 * 23, Loop(60, 60 * 22))
    assert first_loop([*range(3)] * 341) is None and first_loop([*range(3)] * 342) is not None
    row = [0, 1, 2, 3, 4] * 20 + [5, 6, 7, 0, 1, 2, 3, 4]  # 108 tokens of 8 kinds
    assert first_loop(row * 127) is None and first_loop(row * 128) is not None


def test_long_rounds_need_a_few_rounds_as_well() -> None:
    page = list(range(700))
    assert first_loop(page * (LEAST_ROUNDS - 1)) is None
    found = first_loop(page * LEAST_ROUNDS)
    assert found is not None and found[1] == Loop(700, 700 * (LEAST_ROUNDS - 1))


def test_the_shortest_of_the_periods_is_named() -> None:
    found = first_loop([1, 2, 1, 2, 1, 2, 3, 3] + [1, 2, 1, 2] * 1000)
    assert found is not None and found[1].period == 2


def test_one_other_token_now_and_then_is_no_loop() -> None:
    tokens = [token for i in range(300) for token in [*range(40), 1000 + i]]
    assert first_loop(tokens) is None


# ------------------------------------------------------------------------- honest text that repeats


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(oracle.ASSETS)


def markdown_table(columns: int, rows: int, cell: Callable[[int, int], str]) -> str:
    head = "|" + " Name |" * columns + "\n|" + "---|" * columns + "\n"
    return head + "".join("|" + "".join(f" {cell(r, c)} |" for c in range(columns)) + "\n" for r in range(rows))


def html_table(columns: int, rows: int) -> str:
    return "<table>\n" + ("<tr>\n" + "<td></td>\n" * columns + "</tr>\n") * rows + "</table>"


def sources() -> str:
    return "\n".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))[:12])


HONEST: dict[str, Callable[[], str]] = {
    "empty markdown cells": lambda: markdown_table(10, 60, lambda r, c: ""),
    "cells of zero": lambda: markdown_table(12, 50, lambda r, c: "0"),
    "cells of 0.00": lambda: markdown_table(12, 30, lambda r, c: "0.00"),
    "numbered rows": lambda: markdown_table(6, 100, lambda r, c: str(r) if c == 0 else "-"),
    "an empty html form": lambda: html_table(20, 50),
    "one row of 300 cells": lambda: "|" + " |" * 300,
    "a matrix of zeros": lambda: str([[0] * 32] * 32),
    "identity matrix": lambda: str([[int(r == c) for c in range(40)] for r in range(40)]),
    "a flat list of zeros": lambda: str([0] * 256),
    "counting": lambda: ", ".join(map(str, range(1500))),
    "bytes of an empty font": lambda: ("    " + "0x00, " * 16 + "\n") * 32,
    "hex dump": lambda: "".join(f"{16 * i:08x}  " + "00 " * 16 + "\n" for i in range(80)),
    "dots of a table of contents": lambda: "".join(f"Chapter {i} {'.' * 90} {i * 7}\n" for i in range(60)),
    "a ruled page": lambda: ("_" * 80 + "\n") * 80,
    "a line of dashes": lambda: "-" * 2000,
    "a refrain": lambda: "Row, row, row your boat,\nGently down the stream.\n" * 12,
    "records": lambda: "".join(f'{{"id": {i}, "name": "item", "tags": [], "active": true}},\n' for i in range(200)),
    "records without a number": lambda: '{"name": "item", "tags": [], "active": true},\n' * 60,
    "csv of blanks": lambda: ",,,,,,,,,\n" * 200,
    "svg": lambda: "".join(f'<rect x="{x}" y="{y}" width="9" height="9"/>' for y in range(20) for x in range(20)),
    "code": sources,
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_text_is_no_loop(name: str) -> None:
    tokens = tokenizer().encode(HONEST[name](), allow_special=False)
    assert len(tokens) > 30
    assert first_loop(tokens) is None


STUCK = {
    "a sentence": "Wait, let me look at the picture again. The sign says something, but I am not sure what.\n",
    "a word": "the ",
    "a table row": "| 2019 | Total revenue | 1,234 | 5,678 | 91.2 % |\n",
    "a box": '{"bbox_2d": [12, 40, 99, 120], "label": "person"},\n',
    "Chinese": "我需要再看一遍这张图片。",
}


@pytest.mark.parametrize("name", STUCK)
def test_being_stuck_is_noticed_soon(name: str) -> None:
    tokens = tokenizer().encode("The picture shows a street. " + STUCK[name] * 1500, allow_special=False)
    found = first_loop(tokens)
    assert found is not None and found[0] < 2048


# ------------------------------------------------------------------------------------ ends and rewinds


class Words:
    """Every token is its number and a space."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def flush(self) -> str:
        return ""


def build(guard: Any, **params: Any) -> AnswerBuilder:
    return AnswerBuilder(
        Words(),
        StopChecker(SamplingParams(**params), eos_ids=[99]),
        OutputSplitter(),
        loop_guard=guard,
    )


def feed(answer: AnswerBuilder, tokens: Iterable[int]) -> tuple[list[Delta], int, Rewind | None]:
    """Until the answer ends or goes back. -> what was shown, how many tokens went in, the rewind."""
    shown, count, rewind = list[Delta](), 0, None
    for token_id in tokens:
        count += 1
        shown += answer.push(SampledToken(token_id, 0.0 - token_id))
        rewind = answer.take_rewind()
        if rewind is not None or answer.finish_reason is not None:
            break
    return shown, count, rewind


def text(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_stop() -> None:
    answer = build("stop")
    shown, count, _ = feed(answer, [7, 8] + [1, 2, 3, 4] * 999)
    choice = answer.choice()
    assert (count, choice.finish_reason, choice.stop_reason) == (2 + EVIDENCE, "stop", "repetition")
    assert choice.text == text(shown) and choice.text.startswith("7 8 1 2 3 4 1 2") and len(choice.token_ids) == count
    assert len(shown) == count  # nothing was held back


def test_off() -> None:
    shown, count, _ = feed(build("off", max_tokens=3000), [1] * 4000)
    assert count == len(shown) == 3000


def test_min_tokens_come_first() -> None:
    answer = build("stop", min_tokens=2000)
    assert feed(answer, [1] * 4000)[1] == 2000
    assert answer.choice().stop_reason == "repetition"


def test_rewind_to_the_end_of_the_first_round() -> None:
    """Nothing of the second round was shown, and the answer goes on as if it had not been."""
    answer = build("rewind")
    first, count, rewind = feed(answer, [7, 8] + [1, 2, 3, 4] * 999)
    assert count == 2 + EVIDENCE
    assert rewind == Rewind(EVIDENCE - 4, frozenset({1}))
    assert text(first) == "7 8 1 2 3 4 "
    second, _, rewind = feed(answer, [30, 31, 99])
    choice = answer.choice()
    assert rewind is None and text(second) == "30 31 "
    assert choice == Choice(
        text="7 8 1 2 3 4 30 31 ",
        finish_reason="stop",
        stop_reason=99,
        token_ids=(7, 8, 1, 2, 3, 4, 30, 31, 99),
        logprobs=choice.logprobs,
        raw_text="7 8 1 2 3 4 30 31 ",
    )
    assert choice.logprobs is not None and [p.token_id for p in choice.logprobs] == list(choice.token_ids)


def test_the_same_place_forbids_more_and_more_and_then_it_ends() -> None:
    answer = build("rewind")
    rewinds = [feed(answer, [7] + [1, 2] * 999)[2]]
    for begin in (3, 4):
        rewinds.append(feed(answer, [begin] + [2, 1] * 999)[2])  # lands behind "7 1 2 3 2 1": another place
    assert len(rewinds) == MOST_REWINDS and None not in rewinds
    _, _, rewind = feed(answer, [5] + [1, 2] * 999)
    choice = answer.choice()
    assert rewind is None and (choice.finish_reason, choice.stop_reason) == ("stop", "repetition")

    answer = build("rewind")
    rewinds = [feed(answer, tokens)[2] for tokens in ([1, 2] * 999, [1, 2] * 999)]
    assert [r and r.forbidden for r in rewinds] == [frozenset({1}), frozenset({1})]  # as one who ignores it
    answer = build("rewind")
    rewinds = [feed(answer, tokens)[2] for tokens in ([1, 2] * 999, [2] * 2000)]
    assert [r and r.forbidden for r in rewinds] == [frozenset({1}), frozenset({1, 2})]


def test_what_only_looked_like_a_loop_is_shown_when_it_ends() -> None:
    answer = build("rewind")
    shown = [text(answer.push(SampledToken(i))) for i in [1, 2, 3, 1, 2, 4, 5]]
    assert shown == ["1 ", "2 ", "3 ", "", "", "1 2 4 ", "5 "]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40), st.sampled_from([None, 5, 20]), st.integers(0, 30), st.booleans())
def test_holding_back_changes_no_answer(tokens: list[int], limit: int | None, least: int, stop: bool) -> None:
    """Stop strings across what is held, the length, the end token, giving up: all as without the guard."""
    params: dict[str, Any] = dict(
        max_tokens=limit, min_tokens=min(least, limit or least), stop=("2 3 1",) if stop else ()
    )
    answers = [build(guard, **params) for guard in ("rewind", "off")]
    for answer in answers:
        shown, _, _ = feed(answer, [99 if token == 3 and len(tokens) % 3 == 0 else token for token in tokens])
        if answer.finish_reason is None:
            shown += answer.give_up("abort")
        assert text(shown) == answer.choice().text
    assert answers[0].choice() == answers[1].choice()


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(InvalidParams, match=r"loop_guard='on' is not one of stop, rewind, off"):
        SamplingParams(loop_guard="on")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ the thinking budget


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 6), st.lists(st.integers(0, 6), max_size=12), st.lists(st.integers(1, 8), max_size=3))
def test_a_budget_goes_back_with_the_answer(budget: int, choices: list[int], backs: list[int]) -> None:
    """Its state is a function of the tokens that are left. 5 is "</think>"; 6, 5, 6 is what is forced."""

    def play(thinking: ThinkingBudget, tokens: Iterable[int]) -> list[int]:
        made = []
        for token_id in tokens:
            forced = thinking.next_forced()
            made.append(token_id if forced is None else forced)
            thinking.record(made[-1])
        return made

    one = ThinkingBudget(budget, (6, 5, 6), 5)
    made = play(one, choices)
    for back in backs:
        closed = made.index(5) + 2 if 5 in made else 0  # what was forced behind "</think>" is not taken back
        back = min(back, max(0, len(made) - closed))
        one.rewind(back)
        made = made[: len(made) - back]
        other = ThinkingBudget(budget, (6, 5, 6), 5)
        assert play(other, made) == made
        assert one.next_forced() == other.next_forced()
        made += play(one, [1, 2])
