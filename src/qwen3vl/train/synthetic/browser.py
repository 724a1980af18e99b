"""Pages of our own in one real Chromium that renders many of them, and the boxes of what can be clicked.

    drawn(rng, side, family, build)       one of the pages of a family, by chance
    shown(side, family, number, build)    page `number` of a family of pages: rendered, or read from the folder
                                          that the environment variable QWEN3VL_SYNTHETIC_PAGES names

Elements with a data-t attribute ("kind|name") are targets. A target counts only if it is wholly in the window, in
one piece, and really what a click in its middle hits (elementFromPoint). One process keeps one browser; it is cut
off from the network as tasks/chromium.py does, and started anew after PAGES_PER_BROWSER pages.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from qwen3vl.errors import RenderError
from qwen3vl.tasks.chromium import Browser, open_browser
from qwen3vl.train.synthetic.sample import PixelBox, Side
from qwen3vl.train.synthetic.sides import rng_of

FOLDER = "QWEN3VL_SYNTHETIC_PAGES"
PAGES_PER_BROWSER = 2000
SECONDS = 20.0
NUM_PAGES = 30_000  # of each family and side; samples ask different things of one page
_READ = """Promise.all([...document.images].map(i => i.decode().catch(() => 0))).then(() =>
[...document.querySelectorAll('[data-t]')].map(e => {
  const r = e.getBoundingClientRect(), hit = document.elementFromPoint((r.left + r.right) / 2, (r.top + r.bottom) / 2);
  const whole = r.left >= 0 && r.top >= 0 && r.right <= innerWidth && r.bottom <= innerHeight;
  const ok = whole && r.width >= 6 && r.height >= 6 && e.getClientRects().length === 1 && hit && e.contains(hit);
  return ok ? [e.dataset.t, r.left, r.top, r.right, r.bottom] : null;
}).filter(x => x))"""


@dataclass(frozen=True, slots=True)
class Target:
    """Something on a page; kinds as in widgets.Widget, and those that a page adds ("focused field", "day", ...).

    Of the kind "fact" is what can only be read: its name is "question=answer".
    """

    kind: str
    name: str
    box: PixelBox


@dataclass(frozen=True, slots=True)
class Page:
    """What shall be shown, in a window of (width, height) pixels."""

    html: str
    viewport: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shown:
    """A page as it looks."""

    image: Image.Image
    elements: tuple[Target, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What can be clicked."""
        return tuple(e for e in self.elements if e.kind != "fact")

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """(question, answer) of all that is in the window."""
        split = (e.name.partition("=") for e in self.elements if e.kind == "fact")
        return tuple((question, answer) for question, _, answer in split)


class Renderer:
    """One Chromium, started when the first page comes."""

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._browser: Browser | None = None
        self._session = self._frame = ""
        self._viewport = (0, 0)
        self._left = 0

    def render(self, page: Page) -> Shown:
        """Raises RenderError after a second attempt in a new browser."""
        try:
            return self._render(page)
        except RenderError:
            self.close()
            return self._render(page)

    def hit(self, x: float, y: float) -> str:
        """ "kind|name" of what a click there on the page that was rendered last would hit; "" if it is no target."""
        assert self._browser is not None, "no page was rendered yet"
        at = f"document.elementFromPoint({x}, {y})?.closest('[data-t]')?.dataset.t ?? ''"
        return str(self._browser.evaluate(self._session, at))

    def close(self) -> None:
        self._open.close()
        self._browser = None

    def _render(self, page: Page) -> Shown:
        browser = self._ready(page.viewport)
        browser.renew(SECONDS)
        browser.call("Page.setDocumentContent", self._session, frameId=self._frame, html=page.html)
        found = browser.evaluate(self._session, _READ)
        shot = browser.call("Page.captureScreenshot", self._session, format="png", optimizeForSpeed=True)
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        if image.size != page.viewport:
            raise RenderError(f"asked for {page.viewport} pixels, got {image.size}")
        self._left -= 1
        return Shown(image, tuple(_target(*entry) for entry in found))

    def _ready(self, viewport: tuple[int, int]) -> Browser:
        if self._browser is None or self._left <= 0:
            self.close()
            self._browser = self._open.enter_context(open_browser((800, 600), SECONDS))
            self._left = PAGES_PER_BROWSER
            self._viewport = (0, 0)
            self._session = self._browser.open_page()
            self._browser.call("Page.enable", self._session)
            self._browser.call("Fetch.enable", self._session, patterns=[{"urlPattern": "*"}])
            self._frame = self._browser.call("Page.getFrameTree", self._session)["frameTree"]["frame"]["id"]
        if self._viewport != viewport:
            metrics = {"width": viewport[0], "height": viewport[1], "deviceScaleFactor": 1, "mobile": False}
            self._browser.call("Emulation.setDeviceMetricsOverride", self._session, **metrics)
            self._viewport = viewport
        return self._browser


def _target(text: str, x1: float, y1: float, x2: float, y2: float) -> Target:
    kind, _, name = text.partition("|")
    return Target(kind, name, (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)))


_renderers: dict[int, Renderer] = {}  # by process: a forked worker must not talk to its parent's browser


def renderer() -> Renderer:
    """This process's own."""
    if os.getpid() not in _renderers:
        _renderers.clear()
        _renderers[os.getpid()] = made = Renderer()
        atexit.register(made.close)
    return _renderers[os.getpid()]


def drawn(rng: random.Random, side: Side, family: str, build: Callable[[random.Random, Side], Page]) -> Shown:
    """One of the pages of a family and side, with at least one target."""

    def numbered(number: int) -> Page:
        return build(rng_of(side, 0, f"{family} page", number), side)

    while True:
        number = rng.randrange(NUM_PAGES)
        page = shown(side, family, number, partial(numbered, number))
        if page.targets:
            return page


def shown(side: Side, family: str, number: int, build: Callable[[], Page]) -> Shown:
    """Page `number` of a family: a function of these three, `build` must be one too."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return renderer().render(build())
    base = Path(folder, f"{family}-{side}", f"{number // 1000:03d}", f"{number:06d}")
    if base.with_suffix(".json").is_file():
        return _load(base)
    made = renderer().render(build())
    _save(base, made)
    return made


def _save(base: Path, page: Shown) -> None:
    """Both in one step each, the description last: where it stands, the picture is whole."""
    base.parent.mkdir(parents=True, exist_ok=True)
    draft = base.with_suffix(f".{os.getpid()}")
    page.image.save(draft, format="PNG")
    draft.replace(base.with_suffix(".png"))
    draft.write_text(json.dumps([asdict(e) for e in page.elements]), encoding="utf-8")
    draft.replace(base.with_suffix(".json"))


def _load(base: Path) -> Shown:
    read = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
    with Image.open(base.with_suffix(".png")) as image:
        picture = image.convert("RGB")
    return Shown(picture, tuple(Target(e["kind"], e["name"], tuple(e["box"])) for e in read))
