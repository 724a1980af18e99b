"""Pictures of pages nobody trusts: headless Chromium over its debugging pipe, cut off from everything.

    screenshot(html)    the page is loaded, left alone for a moment, and photographed

What keeps the page in:
    requests     every request is intercepted and refused, and reported; the page itself is handed over in memory
    other ways   a Content-Security-Policy without any source; all names fail to resolve; the proxy is a closed
                 port, for loopback too; no QUIC, no WebRTC; as root on Linux, a network namespace without a network
    files        the page's origin is http, which may neither read nor open file:
    time         one deadline for everything; then the whole process group is killed
    memory       a limit on each process's data (`ulimit -d`) and on the JavaScript heap
    dialogs      refused by the policy's sandbox; popups, downloads and frames too
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from qwen3vl.tasks.chromium import PAGE_ADDRESS, Browser, open_browser

VIEWPORT = (1280, 960)
MAX_WIDTH = 4096
MAX_HEIGHT = 16384  # Skia's own limit on a surface's side
MAX_PIXELS = 16 << 20  # drawn in software, at about 10 M pixels a second
SECONDS = 30.0
SETTLE = 0.4  # for scripts and transitions that start with the page


@dataclass(frozen=True, slots=True)
class Shot:
    """A page's picture, the requests that were refused (addresses in order), and what a person should know."""

    image: Image.Image
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    result: Any = None  # of `read`


def screenshot(
    html: str, viewport: tuple[int, int] = VIEWPORT, *, seconds: float = SECONDS, full: bool = True, read: str = ""
) -> Shot:
    """The page as it looks in a window of `viewport` (width, height) pixels, at one device pixel per CSS pixel.

    Args:
        full: the whole page, up to MAX_HEIGHT, instead of the window.
        read: a JavaScript expression to evaluate before the picture is taken; its value is `Shot.result`.

    Raises RenderError: no browser, out of time, out of memory.
    """
    with open_browser(viewport, seconds) as browser:
        session = browser.open_page()
        notes = _load(browser, session, html, viewport)
        result = browser.evaluate(session, read) if read else None
        width, height = viewport
        if full:
            width, height, more = _page_size(browser, session, viewport)
            notes += more
        shot = browser.call("Page.captureScreenshot", session, format="png", **_clip(width, height))
        image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        refused = tuple(dict.fromkeys(browser.refused))
    if refused:
        notes.append(f"{len(refused)} requests were refused: {', '.join(a[:120] for a in refused[:5])}")
    return Shot(image, refused, tuple(notes), result)


def _load(browser: Browser, session: str, html: str, viewport: tuple[int, int]) -> list[str]:
    width, height = viewport
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.html = html
    browser.call("Emulation.setDeviceMetricsOverride", session, **metrics)
    browser.call("Page.enable", session)
    browser.call("Log.enable", session)
    browser.call("Fetch.enable", session, patterns=[{"urlPattern": "*"}])
    frame = browser.call("Page.navigate", session, url=PAGE_ADDRESS)["frameId"]
    if browser.wait_for(("Page.loadEventFired", None), ("Page.frameStoppedLoading", frame)) == "Page.loadEventFired":
        browser.linger(SETTLE)
        return []
    # A script led elsewhere while the page was loading. Chromium gives up on the rest of such a page.
    browser.call("Emulation.setScriptExecutionDisabled", session, value=True)
    browser.served = False
    browser.call("Page.navigate", session, url=PAGE_ADDRESS)
    browser.wait_for(("Page.loadEventFired", None))
    browser.linger(SETTLE)
    return ["a script of the page leads elsewhere while it loads: it is pictured without scripts"]


def _page_size(browser: Browser, session: str, viewport: tuple[int, int]) -> tuple[int, int, list[str]]:
    content = browser.call("Page.getLayoutMetrics", session)["cssContentSize"]
    wide, high = max(viewport[0], int(content["width"])), max(viewport[1], int(content["height"]))
    width = min(wide, MAX_WIDTH)
    height = min(high, MAX_HEIGHT, MAX_PIXELS // width)
    cut = (width, height) != (wide, high)
    return width, height, [f"the page is {wide} x {high} pixels: cut at {width} x {height}"] if cut else []


def _clip(width: int, height: int) -> dict[str, Any]:
    return {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}
