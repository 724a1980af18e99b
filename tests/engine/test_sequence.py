"""Prompts, shared prefixes and the bounds of the context, without a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl.config import ModelConfig, RopeConfig
from qwen3vl.engine.conversation import Conversation as Sequence
from qwen3vl.engine.sequence import Prompt, check_context, room_for_answer
from qwen3vl.errors import ContextTooLong
from tests import models
from tests.engine.prompts import make_inputs

CONFIG = models.small_config()


def holding(prompt: Prompt, length: int) -> Sequence:
    """A sequence whose cache holds the first tokens of a prompt."""
    visuals = [prompt.key(span) for span in prompt.inputs.spans if span.start < length]
    return Sequence(token_ids=prompt.inputs.input_ids_T[:length].tolist(), visuals=visuals)


def with_context(limit: int, rope: RopeConfig | None = None) -> ModelConfig:
    text = replace(CONFIG.text, max_position_embeddings=limit, rope=rope or CONFIG.text.rope)
    return replace(CONFIG, text=text)


def test_placeholders_of_a_range() -> None:
    """2 text, a picture of 6 tokens between its markers, 2 text: the placeholders are tokens 3..8."""
    prompt = Prompt.of(make_inputs(CONFIG, 2, ("image", 4, 6), 2), CONFIG)
    assert prompt.spans == ((3, 9),)
    assert prompt.next_position == 12 - 6 + 3 == 9
    ranges = {(0, 12): 6, (0, 3): 0, (0, 4): 1, (5, 7): 2, (8, 12): 1, (9, 12): 0}
    assert {key: prompt.num_placeholders(*key) for key in ranges} == ranges


@given(st.integers(0, 60), st.integers(1, 20))
def test_placeholders_add_up_over_chunks(start: int, size: int) -> None:
    prompt = Prompt.of(make_inputs(CONFIG, 3, ("image", 4, 6), ("video", 3, 4, 4), 4), CONFIG)
    total = sum(end - begin for begin, end in prompt.spans)
    first = min(start, prompt.num_tokens)
    parts = [
        prompt.num_placeholders(i, min(i + size, prompt.num_tokens)) for i in range(first, prompt.num_tokens, size)
    ]
    assert prompt.num_placeholders(0, first) + sum(parts) == total


def test_one_token_is_always_left_to_read() -> None:
    prompt = Prompt.of(make_inputs(CONFIG, 8), CONFIG)
    assert [holding(prompt, n).shared_prefix(prompt) for n in (0, 3, 7, 8)] == [0, 3, 7, 7]


def test_a_prompt_that_ends_in_a_picture_reads_it_again() -> None:
    whole = make_inputs(CONFIG, 4, ("image", 4, 6))
    cut = replace(whole, input_ids_T=whole.input_ids_T[:-1])  # the last token is a placeholder
    prompt = Prompt.of(cut, CONFIG)
    assert holding(prompt, prompt.num_tokens).shared_prefix(prompt) == prompt.spans[0][0]


def test_a_shorter_prompt_shares_what_it_has() -> None:
    long = Prompt.of(make_inputs(CONFIG, 12), CONFIG)
    short = Prompt.of(replace(long.inputs, input_ids_T=long.inputs.input_ids_T[:5]), CONFIG)
    assert holding(long, 12).shared_prefix(short) == 4


def test_a_picture_whose_tokens_are_there_but_not_its_pixels_is_read() -> None:
    """Ids alone do not tell: an answer may hold the very placeholders that a later prompt has."""
    prompt = Prompt.of(make_inputs(CONFIG, 4, ("image", 4, 6), 3), CONFIG)
    sequence = holding(prompt, prompt.num_tokens)
    sequence.visuals.clear()
    assert sequence.shared_prefix(prompt) == prompt.spans[0][0]


def test_truncating_forgets_pictures() -> None:
    prompt = Prompt.of(make_inputs(CONFIG, 4, ("image", 4, 6), 3, ("image", 4, 4), 2), CONFIG)
    sequence = holding(prompt, prompt.num_tokens)
    sequence.truncate(prompt.spans[1][0])
    assert sequence.num_cached_tokens == prompt.spans[1][0]
    assert sequence.visuals == [prompt.key(prompt.inputs.spans[0])]


# ------------------------------------------------------------------------------------------ context


def test_tokens_are_bounded_by_the_context() -> None:
    prompt, config = Prompt.of(make_inputs(CONFIG, 10), CONFIG), with_context(16)
    assert room_for_answer(prompt, config) == 6
    check_context(prompt, 6, config)
    with pytest.raises(ContextTooLong, match=r"10 tokens .* room for 7: together 17, but the context holds 16"):
        check_context(prompt, 7, config)


def test_max_context_takes_the_place_of_all_bounds() -> None:
    prompt, config = Prompt.of(make_inputs(CONFIG, 10), CONFIG), with_context(16)
    assert (room_for_answer(prompt, config, 12), room_for_answer(prompt, config, 40)) == (2, 30)
    check_context(prompt, 30, config, 40)
    with pytest.raises(ContextTooLong, match="together 13, but the context holds 12"):
        check_context(prompt, 3, config, 12)


def test_positions_are_bounded_by_what_yarn_was_made_for() -> None:
    """Factor 3 of 8 positions is 24, whatever max_position_embeddings says; a picture needs few positions."""
    rope = replace(CONFIG.text.rope, factor=3.0, original_max_positions=8)
    config = with_context(100, rope)
    text = Prompt.of(make_inputs(CONFIG, 20), CONFIG)
    assert room_for_answer(text, config) == 4
    check_context(text, 4, config)
    with pytest.raises(ContextTooLong, match=r"reach position 25, but .* made for 24; state max_context"):
        check_context(text, 5, config)
    check_context(text, 5, config, 100)
    picture = Prompt.of(make_inputs(CONFIG, 2, ("image", 12, 12), 2), CONFIG)  # 42 tokens, positions up to 12
    assert (picture.num_tokens, picture.next_position, room_for_answer(picture, config)) == (42, 12, 12)
