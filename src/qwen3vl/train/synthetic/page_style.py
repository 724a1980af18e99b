"""How pages look: CSS of a theme. A theme "palette/build/density" belongs to a side, and so does its font."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from qwen3vl.errors import InvalidParams
from qwen3vl.train.synthetic.faces import all_faces
from qwen3vl.train.synthetic.palette import Rgb, is_dark, mix
from qwen3vl.train.synthetic.sample import Side
from qwen3vl.train.synthetic.sides import of_side, side_of
from qwen3vl.train.synthetic.widgets import PALETTES, readable_on

BUILDS = ("round", "square", "pill", "line", "raised", "shadow", "plain", "native", "native tidy")
DENSITIES = ("tight", "normal", "airy")
THEMES = tuple(f"{palette}/{build}/{density}" for palette in PALETTES for build in BUILDS for density in DENSITIES)

_CSS = """
*{{box-sizing:border-box}} html,body{{margin:0;height:100%;overflow:hidden}}
body{{font:{size}px/{leading} '{font}',sans-serif;background:{ground};color:{ink}}}
h1,h2,h3,p,ul{{margin:0 0 {pad}px}} h1{{font-size:{h1}px}} h2{{font-size:{h2}px}} h3{{font-size:{h3}px}}
button,input,select,textarea{{font:inherit;color:inherit}}
.b{{display:inline-block;background:{button};color:{button_ink};border:{button_edge};border-radius:{radius};
 padding:{v}px {h}px;margin:1px 3px 1px 0;box-shadow:{shadow};white-space:nowrap}}
.q{{background:{surface};color:{ink};border:1px solid {edge}}}
.f{{display:inline-block;background:{field};color:{ink};border:{field_edge};border-radius:{field_radius};
 padding:{v}px 6px;
 width:100%;min-height:{row}px;white-space:nowrap;overflow:hidden;text-align:left}}
.focus{{outline:2px solid {accent};outline-offset:0}} .hint{{color:{dim}}}
.p{{background:{surface};border:{panel_edge};border-radius:{panel_radius};padding:{pad}px;box-shadow:{shadow}}}
.bar{{background:{bar};color:{bar_ink};padding:{v}px {pad}px;display:flex;align-items:center;gap:{gap}px;
 white-space:nowrap}}
a{{color:{link};text-decoration:{underline}}} .bar a{{color:inherit;text-decoration:none}}
.r{{display:flex;align-items:center;gap:{gap}px}} .c{{display:flex;flex-direction:column;gap:{gap}px}} .g{{flex:1}}
.k{{display:inline-block;width:{mark}px;height:{mark}px;border:1px solid {ink};background:{field};
 vertical-align:middle;
 margin-right:5px;border-radius:{mark_radius};text-align:center;font-size:{mark}px;line-height:{mark}px;flex:none}}
.k.o{{border-radius:50%}} .k.on{{background:{accent};color:{accent_ink}}}
.s{{display:inline-block;width:{switch}px;height:{mark}px;border-radius:{mark}px;background:{edge};
 position:relative;flex:none}}
.s i{{position:absolute;top:1px;left:1px;width:{knob}px;height:{knob}px;border-radius:50%;background:#fff}}
.s.on{{background:{accent}}} .s.on i{{left:auto;right:1px}}
.t{{padding:{v}px {h}px;border-bottom:2px solid transparent;white-space:nowrap}} .t.on{{border-color:{accent};
 font-weight:bold}}
table{{border-collapse:collapse;width:100%}} td,th{{border-bottom:1px solid {edge};padding:{v}px 6px;
 text-align:left;white-space:nowrap}}
.m{{padding:{v}px {h}px;white-space:nowrap}} img{{vertical-align:middle}} .card{{min-width:0}}
.over{{position:absolute;inset:0;background:{shade};display:flex;align-items:center;justify-content:center}}
"""


_NATIVE = """
.b{all:revert;font:inherit;margin:1px 4px 1px 0} .f{all:revert;font:inherit;width:100%;box-sizing:border-box}
.k{all:revert;margin:2px 5px 2px 0}
"""


@dataclass(frozen=True, slots=True)
class PageStyle:
    """The CSS of a page, and what a builder needs to know of it. Lengths in CSS pixels.

    Attributes:
        native: buttons, fields, lists and check boxes are the browser's own.
    """

    css: str
    native: bool
    size: int
    accent: Rgb
    ink: Rgb
    surface: Rgb


@lru_cache(maxsize=2)
def themes(side: Side) -> tuple[str, ...]:
    return of_side(side, "page theme", THEMES)


@lru_cache(maxsize=2)
def families(side: Side) -> tuple[str, ...]:
    """Font families of a side as Chromium finds them by name."""
    found = (f.family for f in all_faces() if f.kind == "plain" and side_of("font", f.clan) == side)
    return tuple(sorted({name.split(",")[0] for name in found}))


def draw_style(rng: random.Random, side: Side, size: int) -> PageStyle:
    """A theme and a font of that side, letters of `size` pixels. Raises InvalidParams: no font of that side."""
    if not families(side):
        raise InvalidParams(f"no fonts for the {side} side here: install some (scripts/training_packages.sh)")
    palette, build, density = rng.choice(themes(side)).split("/")
    ground, surface, accent = PALETTES[palette]
    ink = (244, 244, 245) if is_dark(ground) else rng.choice(((24, 24, 27), (51, 51, 51), (15, 23, 42)))
    values = {
        **_lengths(rng, size, density),
        **_colours(rng, ground, surface, accent, ink),
        **_forms(build, surface, accent, ink),
        "font": rng.choice(families(side)),
    }
    native = build.startswith("native")
    if build == "native":  # as a page without any design
        values |= {"ground": "#fff", "surface": "#fff", "ink": "#000", "dim": "#555", "bar": "#ddd", "bar_ink": "#000"}
        ink, surface = (0, 0, 0), (255, 255, 255)
    return PageStyle(_CSS.format(**values) + _NATIVE * native, native, size, accent, ink, surface)


def _lengths(rng: random.Random, size: int, density: str) -> dict[str, str]:
    air = {"tight": 0.7, "normal": 1.0, "airy": 1.35}[density]
    found = {
        "size": size, "h1": round(size * rng.uniform(1.4, 2.0)), "h2": round(size * 1.3), "h3": round(size * 1.1),
        "v": round(size * 0.28 * air), "h": round(size * 0.75 * air), "pad": round(size * 0.7 * air),
        "gap": round(size * 0.5 * air), "row": round(size * 1.9 * air), "mark": size + 1, "knob": size - 1,
        "switch": round(size * 2), "leading": round(rng.uniform(1.15, 1.4), 2),
    }  # fmt: skip
    return {name: str(value) for name, value in found.items()}


def _colours(rng: random.Random, ground: Rgb, surface: Rgb, accent: Rgb, ink: Rgb) -> dict[str, str]:
    bar = rng.choice((accent, surface, mix(ground, ink, 0.1), mix(accent, (0, 0, 0), 0.5)))
    found = {
        "ground": ground, "surface": surface, "accent": accent, "ink": ink, "edge": mix(surface, ink, 0.25),
        "dim": mix(ink, surface, 0.4), "field": mix(surface, (0, 0, 0) if is_dark(surface) else (255, 255, 255), 0.4),
        "accent_ink": readable_on(accent), "bar": bar, "bar_ink": readable_on(bar),
        "link": mix(accent, ink, 0.25), "shade": mix(ground, (0, 0, 0), 0.45),
    }  # fmt: skip
    underline = rng.choice(("underline", "underline", "none"))
    return {name: _css(colour) for name, colour in found.items()} | {"underline": underline}


def _forms(build: str, surface: Rgb, accent: Rgb, ink: Rgb) -> dict[str, str]:
    edge = _css(mix(surface, ink, 0.25))
    filled = build in ("round", "pill", "shadow", "square")
    button = accent if filled else mix(surface, ink, 0.1) if build == "raised" else surface
    radius = {"round": "5px", "pill": "99px", "shadow": "4px", "line": "3px"}.get(build, "0")
    return {
        "button": _css(button),
        "button_ink": _css(readable_on(button) if filled else ink),
        "button_edge": f"2px outset {edge}" if build == "raised" else f"1px solid {_css(accent) if filled else edge}",
        "radius": radius,
        "field_radius": "0" if build in ("square", "raised") else "4px",
        "field_edge": f"2px inset {edge}" if build == "raised" else f"1px solid {edge}",
        "mark_radius": "2px" if build in ("round", "pill", "shadow") else "0",
        "panel_radius": "6px" if build in ("round", "pill", "shadow") else "0",
        "panel_edge": "none" if build == "shadow" else f"1px solid {edge}",
        "shadow": "0 1px 3px rgba(0,0,0,.35)" if build == "shadow" else "none",
    }


def _css(colour: Rgb) -> str:
    return f"rgb({colour[0]},{colour[1]},{colour[2]})"
