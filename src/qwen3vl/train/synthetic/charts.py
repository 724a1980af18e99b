"""Charts to values: bars, lines and pies, asked for with a JSON Schema in the prompt of tasks/extraction.py.

    chart_bar_small   two to four bars with their numbers written
    chart_bar, chart_line, chart_pie

Where the numbers are written in the chart they must be read exactly; where they must be measured against the
axis, an answer within a few per cent of the axis is right (ValuesTruth.tolerance).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen3vl.tasks.extraction import extract_prompt
from qwen3vl.train.synthetic import words
from qwen3vl.train.synthetic.answers_text import fields_answer
from qwen3vl.train.synthetic.faces import Face, SizedFace, covers, pick_face, sized
from qwen3vl.train.synthetic.roll import paper_colours, taken
from qwen3vl.train.synthetic.sample import NATIVE, Mark, PixelBox, Side, SyntheticSample, Task, ValuesTruth, asked
from qwen3vl.train.synthetic.sheet import Colour, Sheet, brightness, mixed
from qwen3vl.train.synthetic.sides import ranked

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "the value of each label of the chart",
    "additionalProperties": {"type": "number"},
}
PALETTES: tuple[tuple[Colour, ...], ...] = (
    ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194)),
    ((66, 133, 244), (219, 68, 55), (244, 180, 0), (15, 157, 88), (171, 71, 188), (0, 172, 193), (255, 112, 67)),
    ((38, 70, 83), (42, 157, 143), (233, 196, 106), (244, 162, 97), (231, 111, 81), (120, 140, 93), (96, 108, 56)),
    ((61, 64, 91), (224, 122, 95), (129, 178, 154), (242, 204, 143), (94, 100, 114), (178, 100, 120), (60, 130, 160)),
    ((0, 63, 92), (188, 80, 144), (255, 166, 0), (88, 80, 141), (255, 99, 97), (80, 150, 120), (140, 140, 60)),
    ((90, 90, 90), (140, 140, 140), (40, 40, 40), (170, 170, 170), (115, 115, 115), (65, 65, 65), (190, 190, 190)),
    ((200, 60, 60), (60, 140, 200), (80, 170, 90), (230, 170, 40), (130, 80, 170), (230, 120, 160), (100, 100, 100)),
)


@dataclass(frozen=True, slots=True)
class ChartStyle:
    """How a chart is dressed. `name` decides its side."""

    name: str
    lines: bool = True  # of the grid
    frame: bool = False
    lying: bool = False  # bars from left to right
    one_colour: bool = True
    middle: bool = True  # the title


STYLES = (
    ChartStyle("plain"),
    ChartStyle("framed", frame=True),
    ChartStyle("coloured", one_colour=False),
    ChartStyle("lying", lying=True),
    ChartStyle("bare", lines=False, middle=False),
    ChartStyle("lying coloured", lying=True, one_colour=False, lines=False),
    ChartStyle("report", middle=False, frame=True, one_colour=False),
)
ORDER = ("2015 2016 2017 2018 2019 2020 2021 2022 2023 2024", "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
         "Mon Tue Wed Thu Fri Sat Sun", "Q1 Q2 Q3 Q4", "1990 1995 2000 2005 2010 2015 2020")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """Labels with their values, and the axis that holds them: 0, step, 2 x step ... top."""

    labels: tuple[str, ...]
    values: tuple[float, ...]
    step: float
    top: float
    written: bool  # the numbers stand in the chart


@dataclass(slots=True)
class _Chart:
    """A chart under construction: where the plot is, and what it is drawn with."""

    rng: random.Random
    sheet: Sheet
    style: ChartStyle
    font: SizedFace
    ink: Colour
    colours: tuple[Colour, ...]
    plot: tuple[int, int, int, int]
    marks: list[Mark]

    @property
    def faint(self) -> Colour:
        return mixed(self.sheet.paper, self.ink, 0.25)


def made_series(rng: random.Random, side: Side, face: Face, count: int, ordered: bool, written: bool) -> Series:
    """`count` values. Not written in the chart they lie on half steps of the axis or near them."""
    labels = _labels(rng, side, face, count, ordered)
    steps = rng.choice((4, 5, 5, 6, 8, 10))
    step = rng.choice((1, 2, 5, 10, 20, 25, 50, 100, 200, 500))
    parts = 2 if not written else 10 if step >= 10 else 5
    values = []
    for _ in range(count):
        value = rng.randint(1, steps * parts) * step / parts
        values.append(int(value) if float(value).is_integer() else round(value, 2))
    return Series(labels, tuple(values), step, step * steps, written)


def _labels(rng: random.Random, side: Side, face: Face, count: int, ordered: bool) -> tuple[str, ...]:
    if ordered:
        names = rng.choice([o for o in ORDER if len(o.split()) >= count]).split()
        start = rng.randint(0, len(names) - count)
        return tuple(names[start : start + count])
    found: list[str] = []
    while len(found) < count:
        text = (words.word(rng, side) if rng.random() < 0.6 else words.invented(rng, side)).capitalize()
        if len(text) <= 8 and text not in found and covers(face, text):
            found.append(text)
    return tuple(found)


def number_text(value: float) -> str:
    """12.0 is "12", 2.5 is "2.5": as the chart shows it and the answer gives it."""
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


# ----------------------------------------------------------------------------------------- drawing


def _chart(rng: random.Random, side: Side, size: tuple[int, int]) -> _Chart:
    style = rng.choice(ranked(side, "chart style", STYLES, lambda s: s.name))
    palette = rng.choice(ranked(side, "palette", PALETTES, str))
    paper, ink = paper_colours(rng, dark=0.08)
    colours = [c for c in palette if abs(brightness(c) - brightness(paper)) > 45] or [ink]
    rng.shuffle(colours)
    width, height = size
    sheet = Sheet(width, height, paper)
    face = pick_face(rng, side, ("plain", "mono"))
    chart = _Chart(rng, sheet, style, sized(face, rng.choice((10, 11, 12))), ink, tuple(colours), (0, 0, 0, 0), [])
    top = 10
    if rng.random() < 0.75:
        top = _title(chart, side)
    chart.plot = (12, top, width - 14, height - 8)
    return chart


def _title(chart: _Chart, side: Side) -> int:
    font = sized(chart.font.face, chart.font.size + chart.rng.choice((2, 4)))
    while True:
        text = words.title(chart.rng, side, 2)
        if covers(font.face, text) and font.length(text) < chart.sheet.size[0] - 24:
            break
    x, align = (chart.sheet.size[0] / 2, "m") if chart.style.middle else (12, "l")
    chart.sheet.write(x, font.size + 7, text, font, chart.ink, align=align)
    return round(font.size * 1.4) + 16


def _axis(chart: _Chart, series: Series, lying: bool) -> None:
    """Numbers, lines of the grid and the two axes; moves the plot to what is left inside."""
    left, top, right, bottom = chart.plot
    ticks = [i * series.step for i in range(round(series.top / series.step) + 1)]
    if series.written and not lying:
        top += chart.font.size + 4  # the highest number stands above its bar
    if lying:
        left += round(max(chart.font.length(label) for label in series.labels)) + 8
        bottom -= chart.font.size + 8
    else:
        left += round(max(chart.font.length(number_text(t)) for t in ticks)) + 6
        bottom -= chart.font.size + 8
    chart.plot = (left, top, right - (10 if lying else 0), bottom)
    every = _every(chart, ticks, right - left if lying else bottom - top, lying)
    ends: PixelBox
    for at, tick in enumerate(ticks):
        x, y = _at(chart, series, tick, lying)
        if lying:
            if at % every == 0:
                chart.sheet.write(x, bottom + chart.font.size + 4, number_text(tick), chart.font, chart.ink, align="m")
            ends = (x, top, x, bottom)
        else:
            if at % every == 0:
                base = y + chart.font.size * 0.35
                chart.sheet.write(left - 5, base, number_text(tick), chart.font, chart.ink, align="r")
            ends = (left, y, right, y)
        if chart.style.lines:
            chart.sheet.draw.line(ends, chart.faint, 1)
    if chart.style.frame:
        chart.sheet.draw.rectangle(chart.plot, None, chart.ink)
    chart.sheet.draw.line((left, top, left, bottom), chart.ink, 1)
    chart.sheet.draw.line((left, bottom, chart.plot[2], bottom), chart.ink, 1)


def _every(chart: _Chart, ticks: list[float], room: int, lying: bool) -> int:
    """How many ticks from one number to the next, so that they do not touch."""
    size = max(chart.font.length(number_text(t)) for t in ticks) + 8 if lying else chart.font.size * 1.3
    return math.ceil(size * (len(ticks) - 1) / room)


def _at(chart: _Chart, series: Series, value: float, lying: bool) -> tuple[float, float]:
    """The place on the axis of a value: its x of lying bars, its y otherwise (the other is the plot's corner)."""
    left, top, right, bottom = chart.plot
    share = value / series.top
    return (left + share * (right - left), bottom) if lying else (left, bottom - share * (bottom - top))


def draw_bars(chart: _Chart, series: Series) -> None:
    lying = chart.style.lying
    room = chart.sheet.size[1] if lying else chart.sheet.size[0]
    if not lying and sum(chart.font.length(label) + 10 for label in series.labels) > room - 60:
        lying = True
    _axis(chart, series, lying)
    left, top, right, bottom = chart.plot
    slot = ((bottom - top) if lying else (right - left)) / len(series.labels)
    thick = slot * chart.rng.uniform(0.45, 0.8)
    for at, (label, value) in enumerate(zip(series.labels, series.values, strict=True)):
        colour = chart.colours[0 if chart.style.one_colour else at % len(chart.colours)]
        middle = (top if lying else left) + (at + 0.5) * slot
        x, y = _at(chart, series, value, lying)
        half = thick / 2
        box: PixelBox = (left, middle - half, x, middle + half) if lying else (middle - half, y, middle + half, bottom)
        chart.sheet.draw.rectangle(box, colour)
        chart.marks.append(Mark(box, f"{label} {number_text(value)}"))
        lower = chart.font.size * 0.35
        if lying:
            chart.sheet.write(left - 6, middle + lower, label, chart.font, chart.ink, align="r")
        else:
            chart.sheet.write(middle, bottom + chart.font.size + 4, label, chart.font, chart.ink, align="m")
        if series.written:
            _number_beside(chart, number_text(value), (x, middle + lower) if lying else (middle, y), lying)


def _number_beside(chart: _Chart, text: str, at: tuple[float, float], lying: bool) -> None:
    """The value behind the end of its bar, or inside where there is no room."""
    x, y = at
    plate = chart.sheet.paper
    if lying:
        inside = x + chart.font.length(text) + 6 > chart.sheet.size[0] - 2
        x += -4 if inside else 4
        box = (x - chart.font.length(text) - 1, y - chart.font.size, x + 1, y + 3)
        if inside:
            chart.sheet.draw.rectangle(box, plate)
        chart.sheet.write(x, y, text, chart.font, chart.ink, align="r" if inside else "l")
        return
    y = max(y - 4, chart.font.size + 2)
    half = chart.font.length(text) / 2 + 2
    chart.sheet.draw.rectangle((x - half, y - chart.font.size * 0.85, x + half, y + 2), plate)
    chart.sheet.write(x, y, text, chart.font, chart.ink, align="m")


def draw_line(chart: _Chart, series: Series) -> None:
    _axis(chart, series, False)
    left, _, right, bottom = chart.plot
    slot = (right - left) / len(series.labels)
    points = [(left + (at + 0.5) * slot, _at(chart, series, v, False)[1]) for at, v in enumerate(series.values)]
    colour = chart.colours[0]
    chart.sheet.draw.line(points, colour, chart.rng.choice((1, 2, 3)))
    for (x, y), label, value in zip(points, series.labels, series.values, strict=True):
        radius = chart.rng.choice((2, 3))
        chart.sheet.draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
        chart.marks.append(Mark((x, y), f"{label} {number_text(value)}"))
        chart.sheet.write(x, bottom + chart.font.size + 4, label, chart.font, chart.ink, align="m")
    for (x, y), value in zip(points, series.values, strict=True) if series.written else ():
        _number_beside(chart, number_text(value), (x, y - 3), False)


def draw_pie(chart: _Chart, series: Series) -> None:
    """Slices with a legend; the shares in per cent beside their labels when they are written."""
    left, top, right, bottom = chart.plot
    texts = [
        f"{n} {number_text(v)}%" if series.written else n for n, v in zip(series.labels, series.values, strict=True)
    ]
    legend = round(max(chart.font.length(t) for t in texts)) + 38
    radius = min((right - left - legend) / 2, (bottom - top) / 2) - 2
    x, y = left + radius + 2, (top + bottom) / 2
    angle = chart.rng.choice((-90.0, 0.0, chart.rng.uniform(0, 360)))
    for at, value in enumerate(series.values):
        sweep = 360 * value / 100
        box = (x - radius, y - radius, x + radius, y + radius)
        chart.sheet.draw.pieslice(box, angle, angle + sweep, chart.colours[at], chart.sheet.paper)
        turn = math.radians(angle + sweep / 2)
        place = (x + 0.7 * radius * math.cos(turn), y + 0.7 * radius * math.sin(turn))
        chart.marks.append(Mark(place, f"{series.labels[at]} {number_text(value)}"))
        angle += sweep
    base = y - (len(texts) - 1) * chart.font.size * 0.8
    for at, text in enumerate(texts):
        line = base + at * chart.font.size * 1.6
        start = right - legend + 14
        chart.sheet.draw.rectangle((start, line - 8, start + 9, line + 1), chart.colours[at])
        chart.sheet.write(start + 15, line, text, chart.font, chart.ink)


# ------------------------------------------------------------------------------------------- tasks

AXIS_TOLERANCE = 0.06
PIE_TOLERANCE = 0.15


def _sample(task: str, chart: _Chart, series: Series, tolerance: float, strength: float) -> SyntheticSample:
    values = dict(zip(series.labels, series.values, strict=True))
    truth = ValuesTruth(values, 0.0 if series.written else tolerance)
    moved = _with_marks(chart, strength)
    question = asked(chart.sheet.picture, extract_prompt(SCHEMA))
    return SyntheticSample(task, question, fields_answer(values), truth, moved, NATIVE)


def _with_marks(chart: _Chart, strength: float) -> tuple[Mark, ...]:
    """Photographs the chart and moves its marks along; a point goes as a box without size."""
    chart.sheet.areas = [m.place if len(m.place) == 4 else (*m.place, *m.place) for m in chart.marks]  # type: ignore[misc]
    taken(chart.sheet, chart.rng, strength)
    return tuple(
        Mark(area if len(mark.place) == 4 else area[:2], mark.label)
        for mark, area in zip(chart.marks, chart.sheet.areas, strict=True)
    )


def bar_chart(task: str, most: int, written: float, rng: random.Random, side: Side) -> SyntheticSample:
    small = most <= 4
    chart = _chart(rng, side, rng.choice(((192, 160), (224, 192)) if small else ((288, 224), (352, 256), (448, 320))))
    count = rng.randint(2, most)
    series = made_series(rng, side, chart.font.face, count, rng.random() < 0.3, rng.random() < written)
    draw_bars(chart, series)
    return _sample(task, chart, series, AXIS_TOLERANCE, 0.7)


def line_chart(task: str, rng: random.Random, side: Side) -> SyntheticSample:
    chart = _chart(rng, side, rng.choice(((288, 224), (352, 256), (448, 288))))
    count = rng.randint(3, 4 if chart.sheet.size[0] < 300 else 7)
    series = made_series(rng, side, chart.font.face, count, True, rng.random() < 0.4)
    draw_line(chart, series)
    return _sample(task, chart, series, AXIS_TOLERANCE, 0.7)


def pie_chart(task: str, rng: random.Random, side: Side) -> SyntheticSample:
    chart = _chart(rng, side, rng.choice(((288, 192), (352, 256), (384, 224))))
    grey = all(max(c) - min(c) < 10 for c in chart.colours)
    count = min(rng.randint(2, 3 if grey else 5), len(chart.colours))  # more greys cannot be told apart
    cuts = sorted(rng.sample(range(1, 20), count - 1))
    shares = [5 * (b - a) for a, b in zip([0, *cuts], [*cuts, 20], strict=True)]
    written = rng.random() < 0.7
    if written:  # any whole per cent can be read; measured ones come in steps of five
        shares = [s + d for s, d in zip(shares, _spread(rng, count), strict=True)]
    series = Series(_labels(rng, side, chart.font.face, count, False), tuple(shares), 1, 100, written)
    draw_pie(chart, series)
    return _sample(task, chart, series, PIE_TOLERANCE, 0.7)


def _spread(rng: random.Random, count: int) -> list[int]:
    """Small whole numbers that add up to nothing."""
    moved = [rng.randint(-2, 2) for _ in range(count - 1)]
    total = sum(moved)
    return [*moved, -total] if abs(total) < 5 else [0] * count


TASKS: dict[str, Task] = {
    "chart_bar_small": lambda rng, side: bar_chart("chart_bar_small", 4, 1.0, rng, side),
    "chart_bar": lambda rng, side: bar_chart("chart_bar", 7, 0.5, rng, side),
    "chart_line": lambda rng, side: line_chart("chart_line", rng, side),
    "chart_pie": lambda rng, side: pie_chart("chart_pie", rng, side),
}
