"""The Runner without a scheduler, and the pieces of the vision tower."""

from __future__ import annotations

import pytest

from qwen3vl import reference
from qwen3vl.engine.sequence import Prompt
from qwen3vl.model import qwen3vl
from tests.engine.driving import expected, model
from tests.engine.prompts import alone, greedy, make_inputs
from tests.models import Part, difference

PARTS: tuple[Part, ...] = (2, ("image", 4, 6), 3, ("video", 5, 4, 4), 5)


@pytest.mark.parametrize("max_tokens", [2048, 7])
def test_tokens_of_the_reference(max_tokens: int) -> None:
    found = greedy(model(), make_inputs(model().config, *PARTS), 8, max_tokens)
    assert tuple(found) == expected("4b", PARTS, 8)


@pytest.mark.parametrize("patches", [1, 16, 40, 4096])
def test_pieces_of_the_tower(patches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five frames of 16 patches go through one, two or all at a time: the same features, and all patches counted."""
    monkeypatch.setattr(qwen3vl, "PATCHES_PER_CHUNK", patches)
    inputs = make_inputs(model().config, *PARTS)
    runner, sequence = alone(model(), Prompt.of(inputs, model().config))
    done, blocks = [], model().config.vision.depth
    while runner.needs_look(sequence, 2048):
        done.append(runner.look(sequence, 2048))
    frames_at_a_time = max(1, patches // 16)
    passes = 1 + -(-5 // frames_at_a_time)
    assert sum(done) == 24 + 80 and len([each for each in done if each]) == passes
    assert len(done) == passes * (blocks + 1)  # and the mergers
    features = reference.encode(model(), inputs)
    assert features is not None
    for visual, (first, last) in enumerate(((0, 6), (6, 26))):
        mine, theirs = sequence.features[visual], features.slice(first, last)
        assert difference(mine.embeddings_MD, theirs.embeddings_MD) < 1e-5
        for one, two in zip(mine.deepstack, theirs.deepstack, strict=True):
            assert difference(one, two) < 1e-5


def test_a_sequence_that_is_forgotten_holds_no_piece() -> None:
    runner, sequence = alone(model(), Prompt.of(make_inputs(model().config, *PARTS), model().config))
    runner.look(sequence, 2048)
    assert runner._looking
    runner.forget(sequence)
    assert not runner._looking
