"""The Runner gives the reference's tokens, however prompts are cut, reused, continued and interrupted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from qwen3vl import reference
from qwen3vl.engine.conversation import Conversation
from qwen3vl.engine.conversation import ConversationRunner as Runner
from qwen3vl.engine.sequence import Prompt
from qwen3vl.inputs import ModelInputs
from qwen3vl.model.qwen3vl import Qwen3VL
from tests import models
from tests.engine.prompts import as_inputs, joined, make_inputs
from tests.models import Part

CASES: dict[str, tuple[Part, ...]] = {
    "text": (19,),
    "picture": (4, ("image", 6, 8), 7),
    "pictures": (("image", 2, 2), 3, ("image", 8, 4), ("image", 4, 4), 5),
    "video": (3, ("video", 3, 4, 6), 6),
    "all": (2, ("image", 4, 6), 3, ("video", 2, 4, 4), 5, ("image", 6, 4), 4),
}


@pytest.fixture(scope="module")
def dense() -> Qwen3VL:
    return models.ours(models.small_folder("4b"))


def greedy(runner: Runner, sequence: Conversation, inputs: ModelInputs, num_tokens: int) -> tuple[list[int], int]:
    """-> the answer, and how many tokens of the prompt the cache had. All but the last token end in the cache."""
    prefilled = runner.prefill(sequence, Prompt.of(inputs, runner.model.config))
    answer = [int(prefilled.logits_V.argmax())]
    while len(answer) < num_tokens:
        answer.append(int(runner.decode([sequence], answer[-1:])[0].argmax()))
    return answer, prefilled.num_cached_tokens


def ids_of(model: Qwen3VL, inputs: ModelInputs, num_tokens: int) -> list[int]:
    answer = reference.generate_greedy(model, inputs, num_tokens)
    assert len(set(answer)) > 1 or num_tokens < 3
    return answer


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
@pytest.mark.parametrize("case", CASES)
def test_tokens_of_the_reference(case: str, edition: str) -> None:
    model = models.ours(models.small_folder(edition))
    inputs = make_inputs(model.config, *CASES[case])
    expected = ids_of(model, inputs, 10)
    for chunk in (2048, 7, 3):
        runner = Runner(model, prefill_chunk=chunk)
        assert greedy(runner, runner.new_sequence(), inputs, 10) == (expected, 0), chunk


def test_sequences_decode_together(dense: Qwen3VL) -> None:
    runner, prompts = (
        Runner(dense),
        [make_inputs(dense.config, *parts, seed=i) for i, parts in enumerate(CASES.values())],
    )
    sequences = [runner.new_sequence() for _ in prompts]
    last = torch.stack(
        [runner.prefill(s, Prompt.of(p, dense.config)).logits_V for s, p in zip(sequences, prompts, strict=True)]
    )
    answers = []
    for _ in range(8):
        answers.append(last.argmax(-1).tolist())
        last = runner.decode(sequences, answers[-1])
    assert [list(answer) for answer in zip(*answers, strict=True)] == [ids_of(dense, p, 8) for p in prompts]
    assert [s.num_cached_tokens for s in sequences] == [p.num_tokens + 8 for p in prompts]


def test_reuse_at_every_cut(dense: Qwen3VL) -> None:
    """What the cache holds of a prompt is used up to the first difference, but never into a picture."""
    inputs = make_inputs(dense.config, 4, ("image", 4, 6), 3, ("video", 2, 4, 4), 5)
    expected, runner = ids_of(dense, inputs, 3), Runner(dense, prefill_chunk=9)
    spans = Prompt.of(inputs, dense.config).spans
    sequence = runner.new_sequence()
    greedy(runner, sequence, inputs, 1)
    for cut in range(inputs.num_tokens + 1):
        sequence.truncate(cut)
        if cut < inputs.num_tokens:  # something else follows in the cache
            other = 1 if inputs.input_ids_T[cut] != 1 else 2
            sequence.next_position = 0
            runner.decode([sequence], [other])
        answer, cached = greedy(runner, sequence, inputs, 3)
        inside = [start for start, end in spans if start < cut < end]
        assert cached == min(*inside, cut, inputs.num_tokens - 1), cut
        assert answer == expected, cut


def test_a_conversation_goes_on_with_new_pictures(dense: Qwen3VL) -> None:
    config, runner = dense.config, Runner(dense, prefill_chunk=9)
    turns = [
        models.make_prompt(config, 4, ("image", 4, 6), 6, seed=1),
        models.make_prompt(config, 3, ("image", 6, 6), 5, seed=2),
        models.make_prompt(config, 5, ("video", 2, 4, 4), ("image", 2, 4), 5, seed=3),
    ]
    sequence, answers = runner.new_sequence(), []
    for number in range(1, len(turns) + 1):
        inputs = joined(config, *turns[:number], answers=answers)
        known = inputs.num_tokens - len(turns[number - 1])  # all turns before, and their answers ...
        answer, cached = greedy(runner, sequence, inputs, 6)
        assert cached == max(0, known - 1)  # ... but for the last token, which no pass has read
        assert answer == ids_of(dense, inputs, 6)
        answers.append(answer)


def test_another_picture_of_the_same_size_is_read(dense: Qwen3VL) -> None:
    runner, parts = Runner(dense), (4, ("image", 4, 6), 6)
    first = models.make_prompt(dense.config, *parts)
    second = models.Prompt(first.input_ids_T, models.make_prompt(dense.config, *parts, seed=5).shown)
    sequence = runner.new_sequence()
    for prompt, expected_cached in ((first, 0), (second, 5), (first, 5), (first, len(first) - 1)):
        inputs = as_inputs(prompt, dense.config)
        answer, cached = greedy(runner, sequence, inputs, 6)
        assert (answer, cached) == (ids_of(dense, inputs, 6), expected_cached)


def test_two_pictures_that_change_places_are_read(dense: Qwen3VL) -> None:
    runner, prompt = Runner(dense), models.make_prompt(dense.config, 3, ("image", 4, 4), 2, ("image", 4, 4), 4)
    swapped = models.Prompt(prompt.input_ids_T, prompt.shown[::-1])
    sequence = runner.new_sequence()
    greedy(runner, sequence, as_inputs(prompt, dense.config), 3)
    answer, cached = greedy(runner, sequence, as_inputs(swapped, dense.config), 8)
    assert (answer, cached) == (ids_of(dense, as_inputs(swapped, dense.config), 8), 4)


def test_the_tower_sees_only_what_is_new(dense: Qwen3VL, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, seen = Runner(dense), []
    encode = dense.encode_visuals

    def counted(patches_PC: torch.Tensor, frames: Any, progress: Any = None) -> Any:
        seen.append(list(frames))
        return encode(patches_PC, frames, progress)

    monkeypatch.setattr(dense, "encode_visuals", counted)
    config = dense.config
    turns = [
        models.make_prompt(config, 4, ("image", 4, 6), ("video", 3, 4, 4), 6),
        models.make_prompt(config, 3, ("image", 6, 6), 5, seed=2),
    ]
    sequence = runner.new_sequence()
    answer, _ = greedy(runner, sequence, as_inputs(turns[0], config), 3)
    greedy(runner, sequence, joined(config, *turns, answers=[answer]), 3)
    assert seen == [[(4, 6)], [(4, 4)] * 3, [(6, 6)]]
    seen.clear()
    sequence.truncate(Prompt.of(as_inputs(turns[0], config), config).spans[2][0])  # before the video's second frame
    greedy(runner, sequence, as_inputs(turns[0], config), 1)
    assert seen == [[(4, 4)] * 2]


class Interrupt(Exception):
    pass


def test_an_interrupted_prefill_goes_on_where_it_stopped(dense: Qwen3VL) -> None:
    inputs = make_inputs(dense.config, *CASES["all"])
    expected, runner = ids_of(dense, inputs, 3), Runner(dense, prefill_chunk=7)
    prompt = Prompt.of(inputs, dense.config)
    for stop in range(-(-inputs.num_tokens // 7)):
        sequence, count = runner.new_sequence(), itertools.count()

        def progress(what: str, done: int, of: int, count: Any = count, stop: int = stop) -> None:
            if what == "prefill" and next(count) == stop:
                raise Interrupt

        with pytest.raises(Interrupt):
            runner.prefill(sequence, prompt, progress=progress)
        read = min(7 * (stop + 1), inputs.num_tokens)
        assert sequence.num_cached_tokens == read
        answer, cached = greedy(runner, sequence, inputs, 3)
        inside = [start for start, end in prompt.spans if start < read < end]
        assert (answer, cached) == (expected, min(*inside, read, inputs.num_tokens - 1))


def test_an_interrupt_inside_a_pass_loses_that_pass_only(dense: Qwen3VL, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers before the interrupt have written to the cache, those behind it have not."""
    inputs = make_inputs(dense.config, 20)
    expected, runner = ids_of(dense, inputs, 6), Runner(dense, prefill_chunk=8)
    layer, passes = dense.language_model.layers[2], itertools.count()
    forward = layer.forward

    def interrupted(*args: Any) -> Any:
        if next(passes) == 1:
            raise Interrupt
        return forward(*args)

    monkeypatch.setattr(layer, "forward", interrupted)
    sequence = runner.new_sequence()
    with pytest.raises(Interrupt):
        greedy(runner, sequence, inputs, 6)
    assert greedy(runner, sequence, inputs, 6) == (expected, 8)


def test_progress_counts_what_is_read(dense: Qwen3VL) -> None:
    reports: list[tuple[str, int, int]] = []
    runner = Runner(dense, prefill_chunk=8)
    inputs = make_inputs(dense.config, 4, ("image", 4, 4), ("video", 2, 4, 6), 3)
    runner.prefill(runner.new_sequence(), Prompt.of(inputs, dense.config), progress=lambda *r: reports.append(r))
    num_tokens = inputs.num_tokens
    vision = [("vision", 16, 64), ("vision", 64, 64)]
    assert reports == vision + [
        ("prefill", min(8 * (i + 1), num_tokens), num_tokens) for i in range(-(-num_tokens // 8))
    ]


def test_the_cache_is_laid_out_once(dense: Qwen3VL) -> None:
    runner = Runner(dense, prefill_chunk=4)
    inputs = make_inputs(dense.config, 21)
    sequence = runner.new_sequence()
    runner.prefill(sequence, Prompt.of(inputs, dense.config), room=11)
    text = dense.config.text
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 4
    assert sequence.cache.num_bytes == (21 + 11) * per_token
    for token in range(11):
        runner.decode([sequence], [token])
    assert sequence.cache.num_bytes == (21 + 11) * per_token
