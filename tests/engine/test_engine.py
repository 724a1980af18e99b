"""The engine gives the reference's tokens, whatever else is in the batch and however prompts are cut and reused."""

from __future__ import annotations

import pytest

from tests.engine.driving import answers, drive, expected, model, new_engine, work_of
from tests.engine.prompts import make_inputs
from tests.models import Part

CASES: dict[str, tuple[Part, ...]] = {
    "text": (19,),
    "picture": (4, ("image", 6, 8), 7),
    "one token": (1,),
    "pictures": (("image", 2, 2), 3, ("image", 8, 4), ("image", 4, 4), 5),
    "video": (3, ("video", 3, 4, 6), 6),
    "all": (2, ("image", 4, 6), 3, ("video", 2, 4, 4), 5, ("image", 6, 4), 4),
}


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
@pytest.mark.parametrize("budget", [2048, 33, 7, 1])
def test_mixed_batches(edition: str, budget: int) -> None:
    engine = new_engine(edition, max_batched_tokens=budget, max_sequences=min(8, budget))
    works = [work_of(name, make_inputs(model(edition).config, *parts)) for name, parts in CASES.items()]
    assert answers(drive(engine, works)) == {name: expected(edition, parts, 8) for name, parts in CASES.items()}
