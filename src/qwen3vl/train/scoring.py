"""How right an answer is: score(sample, answer) for every kind of truth.

An answer is read by the capability that a user would call (locate, read, extract, watch, ...), in the pixels of
the sample's picture. What cannot be read is as wrong as it can be, never an error:

    TextTruth     character_error, word_error, exact        edits per character and per word, at most 1 per sample
    BoxesTruth    f1, f1_boxes, exact                       overlap >= 0.5 and the same label; boxes alone
                  (text spotting: character_error too, of the texts in the answer's order;
                  where attributes were asked for: attributes, the share of boxes with all of them right)
    PointTruth    hit                                       boxes hit by a point of their own; points too many count
    NumberTruth   exact, tolerant                           equal; within the truth's tolerance
    ChoiceTruth   accuracy
    FieldsTruth   fields, exact, fields/NAME                leaves of the JSON; what was made up counts as wrong
    TableTruth    teds, teds_structure, exact
    PageTruth     character_error, f1, teds                 blocks by kind and place; tables in reading order
    ValuesTruth   values, exact                             labels whose number is within the tolerance
    ActionTruth   success, action, hit                      success: action, place and text are all right
    MomentsTruth  f1_half_second, time_error                both ends within 0.5 s and the same label; seconds
    FreeTruth     word_f1, exact                            words in common, whatever their order

Text is compared after NFC with runs of white space as one space; case and punctuation count, but not in labels,
choices and free sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qwen3vl.errors import ParseError
from qwen3vl.train import scoring_pages, scoring_places, scoring_said
from qwen3vl.train.metrics import Metric
from qwen3vl.train.scoring_asked import Asked, Metrics
from qwen3vl.train.synthetic import sample as truths
from qwen3vl.train.synthetic.sample import SyntheticSample

Failure = Literal["empty", "unreadable"]
LOWER_IS_BETTER = frozenset(("character_error", "word_error", "time_error"))
IN_SECONDS = frozenset(("time_error",))
_ROUNDING = 0.051  # seconds: the format has hundredths, the times that the model is told have tenths

_SCORERS: dict[type, Callable[[Any, Asked, str], Metrics]] = {
    truths.TextTruth: scoring_said.text,
    truths.BoxesTruth: scoring_places.boxes,
    truths.PointTruth: scoring_places.points,
    truths.NumberTruth: scoring_said.number,
    truths.ChoiceTruth: scoring_said.choice,
    truths.FieldsTruth: scoring_said.fields,
    truths.TableTruth: scoring_pages.table,
    truths.PageTruth: scoring_pages.page,
    truths.ValuesTruth: scoring_said.values,
    truths.ActionTruth: scoring_places.action,
    truths.MomentsTruth: scoring_places.moments,
    truths.FreeTruth: scoring_said.free,
}


@dataclass(frozen=True, slots=True)
class Score:
    """What one answer is worth.

    Attributes:
        metrics: name -> quotient; the first is what the task is about.
        failure: why the answer could not be read, if it could not.
    """

    metrics: Mapping[str, Metric]
    failure: Failure | None = None

    @property
    def perfect(self) -> bool:
        """Whether nothing at all is wrong."""
        return self.failure is None and all(_perfect(name, metric) for name, metric in self.metrics.items())


def score(sample: SyntheticSample, answer: str) -> Score:
    """The score of any text as the answer to `sample`; `sample.answer` itself is perfect."""
    scorer, asked = _SCORERS[type(sample.truth)], Asked(sample)
    failure: Failure = "unreadable"
    try:
        if answer.strip():
            return Score(scorer(sample.truth, asked, answer))
        failure = "empty"
    except ParseError:
        pass
    return Score({name: _worst(name, m) for name, m in scorer(sample.truth, asked, sample.answer).items()}, failure)


def _perfect(name: str, metric: Metric) -> bool:
    if name in IN_SECONDS:
        return metric.part <= _ROUNDING * metric.whole
    return metric.part == 0 if name in LOWER_IS_BETTER else metric.part >= metric.whole


def _worst(name: str, metric: Metric) -> Metric:
    if name in IN_SECONDS:
        return Metric(0, 0)  # nothing came whose time could be compared
    whole = metric.whole or 1
    return Metric(whole if name in LOWER_IS_BETTER else 0, whole)
