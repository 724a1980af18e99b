"""The two sides share nothing, and a sample is a pure function of its name."""

from __future__ import annotations

import json
import random

import pytest

from qwen3vl.errors import InvalidParams
from qwen3vl.train.synthetic import documents, faces, forms, pagesetting, receipts, tables, words
from qwen3vl.train.synthetic import sample as truths
from qwen3vl.train.synthetic.registry import make_sample, task_named
from qwen3vl.train.synthetic.sample import truth_from_json, truth_to_json
from qwen3vl.train.synthetic.shards import sample_to_json
from qwen3vl.train.synthetic.sides import of_side, ranked, side_of
from tests.train.synthetic.fonts import base_fonts  # noqa: F401


def test_names_belong_to_one_side() -> None:
    names = [f"name {i}" for i in range(4000)]
    held = of_side("heldout", "word", names)
    assert set(held).isdisjoint(of_side("train", "word", names))
    assert 0.17 < len(held) / len(names) < 0.23
    assert side_of("word", "zebra") == side_of("word", "zebra")


@pytest.mark.parametrize(
    "styles", [pagesetting.STYLES, receipts.STYLES, forms.STYLES, tables.STYLES, documents.ORDERS], ids=len
)
def test_layouts_are_cut_in_two(styles: tuple) -> None:
    train, held = ranked("train", "x", styles), ranked("heldout", "x", styles)
    assert train and held and len(train) > len(held)
    assert sorted(map(str, train + held)) == sorted(map(str, styles))


def test_fonts_of_the_sides_differ() -> None:
    rng = random.Random(0)
    clans = {side: {faces.pick_face(rng, side).clan for _ in range(60)} for side in ("train", "heldout")}
    assert clans["train"].isdisjoint(clans["heldout"])
    assert len(clans["train"]) >= 2


def test_families_with_the_same_drawings_are_one_clan() -> None:
    assert faces.clan_of("Carlito") == faces.clan_of("Lato Semibold") == "lato"
    assert faces.clan_of("DejaVu Sans Condensed") == faces.clan_of("Hack")
    assert faces.clan_of("Noto Sans") == faces.clan_of("Open Sans Extrabold")
    assert faces.clan_of("PT Sans") != faces.clan_of("PT Serif")


def test_words_of_the_sides_differ() -> None:
    rng = random.Random(0)
    for maker in (words.word, words.invented, words.code):
        made = {side: {maker(rng, side).lower() for _ in range(150)} for side in ("train", "heldout")}
        assert made["train"].isdisjoint(made["heldout"]), maker


def test_a_sample_is_a_function_of_its_name() -> None:
    for task in ("read_line", "form_fields", "table_html"):
        first, again = (make_sample(task, "train", 5, 3) for _ in range(2))
        assert first.key == f"train/{task}/5/3"
        assert _content(first) == _content(again)
        others = [
            make_sample(task, "train", 5, 4),
            make_sample(task, "train", 6, 3),
            make_sample(task, "heldout", 5, 3),
        ]
        assert all(_content(other) != _content(first) for other in others)


def _content(sample: truths.SyntheticSample) -> tuple[str, bytes]:
    written, pictures = sample_to_json(sample)
    return json.dumps({**written, "key": ""}), b"".join(p.tobytes() for p in pictures)


def test_unknown_task() -> None:
    with pytest.raises(InvalidParams, match=r"no synthetic task 'red'; there are .*read_line"):
        task_named("red")


@pytest.mark.parametrize(
    "truth",
    [
        truths.TextTruth("a\nb"),
        truths.BoxesTruth((("a", (1.0, 2.0, 3.5, 4.0)),)),
        truths.FieldsTruth({"a": [1, {"b": None}]}),
        truths.PageTruth((("text", "a", (0.0, 0.0, 1.0, 1.0)),)),
        truths.ValuesTruth({"a": 2.5}, 0.05),
        truths.ActionTruth("left_click", (1.0, 2.0, 3.0, 4.0)),
        truths.MomentsTruth(((0.5, 1.5, "a ball"),)),
    ],
    ids=lambda truth: type(truth).__name__,
)
def test_truth_through_json(truth: truths.Truth) -> None:
    assert truth_from_json(json.loads(json.dumps(truth_to_json(truth)))) == truth
