"""Metrics of what is said: text, numbers, choices, fields and values; see scoring.py."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qwen3vl.errors import ParseError
from qwen3vl.tasks import ocr
from qwen3vl.tasks.extraction import extract
from qwen3vl.tasks.grounding import count
from qwen3vl.tasks.parsing import final_answer, final_choice, without_reasoning
from qwen3vl.train import metrics as measure
from qwen3vl.train.metrics import Metric, plain
from qwen3vl.train.replay import Replay
from qwen3vl.train.scoring_asked import Asked, Metrics, label, right
from qwen3vl.train.synthetic import sample as truths

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def text(truth: truths.TextTruth, asked: Asked, answer: str) -> Metrics:
    said = plain(ocr.read(Replay(answer).generator, asked.picture).text)
    wanted = plain(truth.text)
    return {
        "character_error": measure.error_rate(wanted, said),
        "word_error": measure.error_rate(wanted.split(), said.split()),
        "exact": right(wanted == said),
    }


def free(truth: truths.FreeTruth, asked: Asked, answer: str) -> Metrics:
    said, wanted = (re.findall(r"\w+", label(t)) for t in (without_reasoning(answer), truth.text))
    common = sum((Counter(said) & Counter(wanted)).values())
    return {"word_f1": measure.f1(common, len(wanted), len(said)), "exact": right(said == wanted)}


def number(truth: truths.NumberTruth, asked: Asked, answer: str) -> Metrics:
    said: float
    if "bbox" in asked.question:  # counted, with the boxes as evidence
        said = count(Replay(answer).generator, asked.picture, "anything").number
    else:
        said = _number_in(answer)
    return {"exact": right(said == truth.value), "tolerant": right(abs(said - truth.value) <= truth.tolerance)}


def _number_in(answer: str) -> float:
    """The one number of the final answer; "1,234" is one number."""
    numbers = _NUMBER.findall(final_answer(answer) or "")
    if len(numbers) != 1:
        raise ParseError(f"{len(numbers)} numbers in the answer", raw=answer)
    return float(numbers[0].replace(",", ""))


def choice(truth: truths.ChoiceTruth, asked: Asked, answer: str) -> Metrics:
    return {"accuracy": right(_chosen(truth.options, answer) == truth.answer)}


def _chosen(options: Sequence[str], answer: str) -> str | None:
    """A letter by the reader of multiple choice; a word where the answer is it or its last sentence names it alone."""
    said = _bare(without_reasoning(answer))
    exact = [option for option in options if _bare(option) == said]
    if exact:
        return exact[0]
    if all(re.fullmatch("[A-Z]", option) for option in options):
        return final_choice(answer, dict.fromkeys(options, ""))
    letters = {chr(0x4E00 + i): option for i, option in enumerate(options)}  # no letter that an answer could say
    named = final_choice(answer, letters)
    return letters[named] if named else None


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


# ------------------------------------------------------------------------------- JSON and values


def fields(truth: truths.FieldsTruth, asked: Asked, answer: str) -> Metrics:
    """A list's items are compared in order; text and numbers as text, so that 5 and "5" are the same."""
    read = extract(Replay(answer).generator, asked.picture, {"type": "object"}, retries=0)
    wanted, said = dict(_leaves(truth.fields)), dict(_leaves(read.value))
    same = {path: path in said and said[path] == value for path, value in wanted.items()}
    extra = [path for path in said if path not in wanted]
    found = {"fields": Metric(sum(same.values()), len(wanted) + len(extra))}
    found["exact"] = right(all(same.values()) and not extra)
    for path, is_right in same.items():
        name = "fields/" + re.sub(r"\[\d+\]", "[]", path)
        found[name] = found.get(name, Metric(0, 0)) + right(is_right)
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str | None]]:
    """("items[0].name", "Tea") ...; an empty list or object is a leaf."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, (list, tuple)) and value:
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        yield path, None if value is None else plain(str(value))
    else:
        yield path, f"{value:.12g}"


def values(truth: truths.ValuesTruth, asked: Asked, answer: str) -> Metrics:
    read = extract(Replay(answer).generator, asked.picture, {"type": "object"}, retries=0)
    said = {label(str(name)): _as_number(value) for name, value in _pairs(read.value)}
    wanted = {label(name): value for name, value in truth.values.items()}
    near = [n for n, v in wanted.items() if (got := said.get(n)) is not None and _near(got, v, truth.tolerance)]
    union = len(wanted.keys() | said.keys())
    return {"values": Metric(len(near), union), "exact": right(len(near) == union)}


def _near(said: float, wanted: float, tolerance: float) -> bool:
    return abs(said - wanted) <= tolerance * abs(wanted) + 1e-9


def _pairs(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Numbers by label, wherever they lie: {"values": {"a": 1}} is {"a": 1}."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _pairs(inner)
        else:
            yield name, inner


def _as_number(value: Any) -> float | None:
    try:
        return float(str(value).strip().rstrip("%").replace(",", ""))
    except ValueError:
        return None
