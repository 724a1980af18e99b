"""Metrics of where and when: boxes, points, actions, moments; see scoring.py."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3vl.agent.actions import Click, Drag, Move, Press, Scroll, Step, read_step
from qwen3vl.tasks import ocr
from qwen3vl.tasks.grounding import LocatedBox, locate, point
from qwen3vl.tasks.video import watch
from qwen3vl.train import metrics as measure
from qwen3vl.train.metrics import Metric, plain
from qwen3vl.train.replay import Replay
from qwen3vl.train.scoring_asked import OVERLAP, SECONDS, Asked, Metrics, inside, label, right
from qwen3vl.train.synthetic import sample as truths
from qwen3vl.types import VideoPart


def boxes(truth: truths.BoxesTruth, asked: Asked, answer: str) -> Metrics:
    level, model = asked.spotting, Replay(answer).generator
    said: list[truths.Labelled]
    if level:
        said = [(b.text, b.box.corners) for b in ocr.read(model, asked.picture, level=level).boxes]
    else:
        said = [(b.label, b.box.corners) for b in locate(model, asked.picture, "anything").boxes]
    name = plain if level else label  # what was read must be right to the letter

    def over(a: truths.Labelled, b: truths.Labelled) -> bool:
        return measure.overlap(a[1], b[1]) >= OVERLAP

    def same(a: truths.Labelled, b: truths.Labelled) -> bool:
        return name(a[0]) == name(b[0]) and over(a, b)

    sizes = len(truth.items), len(said)
    paired = measure.most_pairs(truth.items, said, same)
    pairs = len(paired)
    alone = len(measure.most_pairs(truth.items, said, over))
    found = {"f1": measure.f1(pairs, *sizes), "f1_boxes": measure.f1(alone, *sizes)}
    if level:
        wanted, read = (plain("\n".join(t for t, _ in items)) for items in (truth.items, said))
        found["character_error"] = measure.error_rate(wanted, read)
    elif attributes := _attributes(asked, answer):
        found["attributes"] = attributes
    return {**found, "exact": right(sizes == (pairs, pairs))}


def _attributes(asked: Asked, answer: str) -> Metric | None:
    """Where more was asked for of each thing ("color", "time"): the share of things found with all of it right.

    Things are paired with it in mind: what stands still in a clip has one box at several times.
    """
    wanted, said = (locate(Replay(t).generator, asked.picture, "anything").boxes for t in (asked.true_answer, answer))

    def same(a: LocatedBox, b: LocatedBox) -> bool:
        return (
            label(a.label) == label(b.label)
            and measure.overlap(a.box.corners, b.box.corners) >= OVERLAP
            and all(label(str(b.attributes.get(name, ""))) == label(str(value)) for name, value in a.attributes.items())
        )

    with_more = [box for box in wanted if box.attributes]
    return Metric(len(measure.most_pairs(with_more, said, same)), len(with_more)) if with_more else None


def points(truth: truths.PointTruth, asked: Asked, answer: str) -> Metrics:
    said = point(Replay(answer).generator, asked.picture, "anything").points
    several = len({label(name) for name, _ in truth.items}) > 1

    def hits(item: truths.Labelled, index: int) -> bool:
        there = said[index]
        return inside(item[1], there.point.x, there.point.y) and (not several or label(item[0]) == label(there.label))

    pairs = measure.most_pairs(truth.items, range(len(said)), hits)
    return {"hit": Metric(len(pairs), max(len(truth.items), len(said)))}


def action(truth: truths.ActionTruth, asked: Asked, answer: str) -> Metrics:
    step = read_step(answer, asked.picture.size, "computer" if asked.on_computer else "mobile")
    same = str(step.arguments["action"]).strip().lower() == truth.action
    found = {"action": right(same)}
    success = same and (truth.text is None or plain(_text_of(step)) == plain(truth.text))
    if truth.box is not None:
        place = _place_of(step)
        found["hit"] = right(place is not None and inside(truth.box, *place))
        success = success and bool(found["hit"].part)
    return {"success": right(success), **found}


def _place_of(step: Step) -> tuple[float, float] | None:
    """The middle of the pixel that is acted on; of a drag, where it begins."""
    act = step.action
    at = act.at if isinstance(act, Click | Move | Press | Scroll) else act.start if isinstance(act, Drag) else None
    return None if at is None else (at.x + 0.5, at.y + 0.5)


def _text_of(step: Step) -> str:
    """What is typed, answered or pressed; how it ended."""
    for name in ("text", "keys", "key", "button", "status"):
        if name in step.arguments:
            value = step.arguments[name]
            return " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return ""


def moments(truth: truths.MomentsTruth, asked: Asked, answer: str) -> Metrics:
    """Time error: mean over both ends of the events of one label, paired in the order in which they begin."""
    found = watch(Replay(answer).generator, asked.clip, "anything", duration=_duration(asked.clip))
    said = [(m.start, m.end, label(m.text).rstrip(".")) for m in found.moments]
    wanted = [(start, end, label(name).rstrip(".")) for start, end, name in truth.moments]

    def near(a: truths.Moment, b: truths.Moment) -> bool:
        return a[2] == b[2] and max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= SECONDS + 1e-9

    error = Metric(0, 0)
    for name in dict.fromkeys(m[2] for m in wanted):
        pairs = zip(*(sorted(m for m in items if m[2] == name) for items in (wanted, said)), strict=False)
        error = sum((Metric(abs(a[0] - b[0]) + abs(a[1] - b[1]), 2) for a, b in pairs), error)
    pairs_near = len(measure.most_pairs(wanted, said, near))
    return {"f1_half_second": measure.f1(pairs_near, len(wanted), len(said)), "time_error": error}


def _duration(clip: VideoPart) -> float | None:
    """Of frames: until the last one's end."""
    frames = clip.video
    if isinstance(frames, (str, bytes)) or not isinstance(frames, Sequence) or clip.frame_rate is None:
        return None
    return len(frames) / clip.frame_rate
