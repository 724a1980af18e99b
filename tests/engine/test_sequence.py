"""Prompts, shared prefixes and the bounds of the context, without a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl.config import ModelConfig, RopeConfig
from qwen3vl.engine.context import check_context, room_for_answer
from qwen3vl.engine.sequence import Prompt, Sequence
from qwen3vl.errors import ContextTooLong
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.vision import VisualFeatures
from tests import models
from tests.engine.prompts import make_inputs

CONFIG = models.small_config()


def with_context(limit: int, rope: RopeConfig | None = None) -> ModelConfig:
    text = replace(CONFIG.text, max_position_embeddings=limit, rope=rope or CONFIG.text.rope)
    return replace(CONFIG, text=text)


def num_placeholders(prompt: Prompt, start: int, end: int) -> int:
    return sum(last - first for _, first, last in prompt.spans_in(start, end))


def test_placeholders_of_a_range() -> None:
    """2 text, a picture of 6 tokens between its markers, 2 text: the placeholders are tokens 3..8."""
    prompt = Prompt.of(make_inputs(CONFIG, 2, ("image", 4, 6), 2), CONFIG)
    assert prompt.spans == ((3, 9),)
    assert prompt.next_position == 12 - 6 + 3 == 9
    ranges = {(0, 12): 6, (0, 3): 0, (0, 4): 1, (5, 7): 2, (8, 12): 1, (9, 12): 0}
    assert {key: num_placeholders(prompt, *key) for key in ranges} == ranges


@given(st.integers(0, 60), st.integers(1, 20))
def test_placeholders_add_up_over_chunks(start: int, size: int) -> None:
    prompt = Prompt.of(make_inputs(CONFIG, 3, ("image", 4, 6), ("video", 3, 4, 4), 4), CONFIG)
    total = sum(end - begin for begin, end in prompt.spans)
    first = min(start, prompt.num_tokens)
    parts = [
        num_placeholders(prompt, i, min(i + size, prompt.num_tokens)) for i in range(first, prompt.num_tokens, size)
    ]
    assert num_placeholders(prompt, 0, first) + sum(parts) == total


# ---------------------------------------------------------------------------------------- sequences


def test_tokens_and_positions_of_prompt_and_answer() -> None:
    """2 text, a picture of 6 tokens between its markers, 2 text; the answer goes on at position 9."""
    prompt = Prompt.of(make_inputs(CONFIG, 2, ("image", 4, 6), 2), CONFIG)
    sequence = Sequence(prompt, BlockTable(4))
    sequence.answer_ids += [71, 72, 73]
    assert sequence.num_tokens == sequence.num_pending == 15 and sequence.last_position == 11
    ids = [*prompt.inputs.input_ids_T.tolist(), 71, 72, 73]
    positions = np.concatenate((prompt.positions_3T, np.tile([9, 10, 11], (3, 1))), axis=1)
    for start in range(15):
        for end in range(start + 1, 16):
            assert sequence.ids(start, end).tolist() == ids[start:end]
            assert (sequence.positions(start, end) == positions[:, start:end]).all()


def test_visual_tokens_of_a_range() -> None:
    """A picture of 6 tokens at 3..8, a video of two frames of 4 at 18..21 and 28..31: in one piece each."""
    prompt = Prompt.of(make_inputs(CONFIG, 2, ("image", 4, 6), 5, ("video", 2, 4, 4)), CONFIG)
    assert prompt.spans == ((3, 9), (19, 23), (29, 33))
    sequence = Sequence(prompt, BlockTable(4))
    assert [sequence.next_unseen(n) for n in (3, 4, 40)] == [None, 0, 0]
    sequence.features[0] = VisualFeatures(torch.arange(6.0)[:, None], (torch.arange(6.0)[:, None],))
    assert [sequence.next_unseen(n) for n in (19, 20)] == [None, 1]
    sequence.features[1] = VisualFeatures(10 + torch.arange(8.0)[:, None], (torch.arange(8.0)[:, None],))
    at, part = sequence.visual_tokens(5, 31)
    assert part is not None and at.tolist() == [0, 1, 2, 3, 14, 15, 16, 17, 24, 25]
    assert part.embeddings_MD[:, 0].tolist() == [2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert part.deepstack[0][:, 0].tolist() == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert sequence.visual_tokens(9, 19)[1] is None
    sequence.num_computed = 9
    sequence.drop_features()
    assert list(sequence.features) == [1]


def test_going_back() -> None:
    sequence = Sequence(Prompt.of(make_inputs(CONFIG, 3), CONFIG), BlockTable(4))
    sequence.answer_ids += [1, 2, 3, 4]
    sequence.num_computed = 7
    sequence.truncate(5)
    assert (sequence.answer_ids, sequence.num_computed, sequence.is_decoding) == ([1, 2], 4, True)
    with pytest.raises(AssertionError):
        sequence.truncate(3)  # the last token of the prompt is not the answer's


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
