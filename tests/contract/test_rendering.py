"""Generated pages in a real Chromium: what they look like, and that hostile ones reach nothing and end."""

from __future__ import annotations

import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from qwen3vl.errors import RenderError
from qwen3vl.tasks.chromium import find_chromium
from qwen3vl.tasks.coding_browser import MAX_PIXELS, screenshot
from qwen3vl.tasks.coding_render import render, render_drawio
from qwen3vl.tasks.coding_similarity import similarity
from tests.unit.tasks.recorded import answer

try:
    find_chromium()
    REASON = ""
except RenderError as error:
    REASON = str(error)
needs_chromium = pytest.mark.skipif(bool(REASON), reason=REASON)
DIAGRAM = Path(__file__).parents[1] / "fixtures" / "diagram.drawio"
RED, WHITE = (255, 0, 0), (255, 255, 255)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    connections = 0


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.server.connections += 1  # type: ignore[attr-defined]


@pytest.fixture
def server() -> Iterator[_Server]:
    """Counts every connection to a loopback port."""
    with _Server(("127.0.0.1", 0), _Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return sum(n for n, value in image.getcolors(1 << 24) or [] if value == colour)


@needs_chromium
def test_a_page_is_pictured_whole_in_its_colours() -> None:
    html = (
        "<style>body{margin:0}div{width:100px;height:700px;background:#f00}</style><div></div>"
        "<script>document.body.append('made by a script')</script><iframe width=50 srcdoc='<p>'></iframe>"
    )
    shot = screenshot(html, (200, 150))
    assert shot.image.width == 200 and 700 < shot.image.height < 900
    assert count(shot.image, RED) == 100 * 700
    below = shot.image.crop((0, 705, 200, shot.image.height))
    assert len(below.getcolors(1 << 16) or []) > 2  # letters
    assert shot.refused == () and shot.notes == ()


@needs_chromium
def test_a_window_as_low_as_a_banner() -> None:
    assert screenshot("<style>body{margin:0}</style><p>x", (200, 40)).image.size[0] == 200


@needs_chromium
def test_the_recorded_page() -> None:
    drawn = render(answer("mmcode_5_html"), "html", viewport=(1280, 1205))
    assert drawn.image.width == 1280 and drawn.image.height > 1205 and not drawn.notes
    assert similarity(drawn.image, drawn.image) == pytest.approx(1)
    assert similarity(drawn.image, Image.new("RGB", drawn.image.size, "white")) < 0.5


@needs_chromium
def test_svg_is_cut_to_its_size() -> None:
    svg = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="120" height="80">'
    drawn = render(svg + '<rect width="60" height="80" fill="red"/></svg>', "svg")
    assert drawn.image.size == (120, 80) and count(drawn.image, RED) == 60 * 80 == count(drawn.image, WHITE)


@needs_chromium
def test_a_diagram_is_drawn_by_maxgraph() -> None:
    drawn = render(DIAGRAM.read_text(encoding="utf-8"), "drawio")
    assert drawn.notes == ("drawn as plain rectangles: the shapes mxgraph.aws4.lambda",)
    assert drawn.image.size == (381, 451)
    colours = {"start": (213, 232, 212), "read": (218, 232, 252), "ok": (255, 242, 204), "db": (248, 206, 204)}
    assert all(count(drawn.image, colour) > 1000 for colour in colours.values())
    assert max(drawn.image.getpixel((91, 195))) < 150  # the connection from "read" to "ok"


def test_a_page_that_a_diagram_does_not_have() -> None:
    with pytest.raises(RenderError, match="page 1 of a diagram with 1 pages"):
        render_drawio(DIAGRAM.read_text(encoding="utf-8"), page=1)


# ------------------------------------------------------------------------------------ hostile pages


@needs_chromium
def test_no_request_leaves_the_page(server: _Server) -> None:
    there = f"127.0.0.1:{server.server_address[1]}"
    html = f"""<link rel=stylesheet href="http://{there}/a.css"><link rel=preconnect href="http://{there}">
        <link rel=dns-prefetch href="http://{there}"><img src="http://{there}/b.png"><iframe src="http://{there}/c"></iframe>
        <script src="http://{there}/d.js"></script><form id=f action="http://{there}/e" method=post></form>
        <style>@font-face{{font-family:x;src:url(http://{there}/f.woff)}} p{{font-family:x}}</style><p>text</p>
        <video src="http://{there}/g.mp4"></video><object data="http://{there}/h"></object>
        <a id=ping href="#" ping="http://{there}/i">x</a>
        <script>
          const quiet = f => {{ try {{ f()?.catch?.(() => 0) }} catch (e) {{}} }};
          quiet(() => fetch("http://{there}/j", {{mode: "no-cors"}})); quiet(() => navigator.sendBeacon("http://{there}/k"));
          quiet(() => new WebSocket("ws://{there}/l")); quiet(() => new EventSource("http://{there}/m"));
          quiet(() => open("http://{there}/n")); quiet(() => f.submit()); quiet(() => ping.click());
          quiet(() => new Worker(URL.createObjectURL(new Blob(["fetch('http://{there}/o')"]))));
          quiet(() => {{ const c = new RTCPeerConnection({{iceServers: [{{urls: "turn:{there}?transport=tcp",
            username: "u", credential: "p"}}]}}); c.createDataChannel("x");
            return c.createOffer().then(o => c.setLocalDescription(o)); }});
          setTimeout(() => location = "http://{there}/q", 50);
        </script>"""
    shot = screenshot(html, (300, 200))
    assert server.connections == 0
    assert {f"http://{there}/{name}" for name in ("a.css", "b.png", "d.js", "j")} <= set(shot.refused)
    assert "requests were refused" in shot.notes[-1]


@needs_chromium
def test_the_server_of_that_test_would_see_a_request(server: _Server) -> None:
    """The control: the same browser without our flags and policy gets through."""
    there = f"http://127.0.0.1:{server.server_address[1]}/"
    command = [find_chromium(), "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    with subprocess.Popen(
        [*command, "--dump-dom", there], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as browser:
        try:
            for _ in range(150):
                if server.connections:
                    break
                threading.Event().wait(0.1)
        finally:
            os.killpg(browser.pid, 9)
    assert server.connections > 0


@needs_chromium
def test_files_can_be_neither_shown_nor_read() -> None:
    html = """<style>body{margin:0;background:#f00}</style><meta http-equiv=refresh content="0;url=file:///etc/passwd">
        <iframe src="file:///etc/passwd" frameborder=0></iframe>
        <script>var got = "nothing"; const seen = t => { got = t };
        fetch("file:///etc/passwd").then(r => r.text()).then(seen, () => 0);
        const x = new XMLHttpRequest();
        try { x.open("GET", "file:///etc/passwd", false); x.send(); seen(x.responseText) } catch (e) {}
        try { location = "file:///etc/passwd" } catch (e) {}</script>"""
    shot = screenshot(html, (200, 150), read="got")
    assert shot.result == "nothing"
    assert shot.image.getpixel((199, 149)) == RED and count(shot.image, (0, 0, 0)) == 0


@needs_chromium
def test_an_endless_loop_is_stopped() -> None:
    with pytest.raises(RenderError, match="not done after 4 s"):
        screenshot("<h1>x</h1><script>for (;;);</script>", (200, 150), seconds=4)
    assert "qwen3vl-page-" not in _processes()


def _processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@needs_chromium
@pytest.mark.slow
def test_memory_is_bounded() -> None:
    endless = "<script>let a = []; for (;;) a.push({x: new Array(1000).fill(Math.random())})</script>"
    with pytest.raises(RenderError, match=r"crashed|not done"):
        screenshot(endless, (200, 150))


@needs_chromium
def test_dialogs_downloads_and_pages_that_reload_do_not_hold_it_up() -> None:
    html = """<style>body{margin:0;background:#f00}</style>
        <script>alert(1); confirm(2); prompt(3); window.print();
        if (!sessionStorage.n) { sessionStorage.n = 1; location.reload() }</script>
        <a id=a download=x href="data:text/plain,x">x</a><script>a.click()</script>"""
    shot = screenshot(html, (200, 150))
    assert shot.image.getpixel((150, 140)) == RED
    assert shot.notes[0] == "a script of the page leads elsewhere while it loads: it is pictured without scripts"


@needs_chromium
def test_a_huge_page_is_cut_and_says_so() -> None:
    shot = screenshot("<div style='width:90000px;height:9000000px;background:red'></div>", (200, 150), seconds=60)
    assert shot.image.width * shot.image.height <= MAX_PIXELS
    assert "the page is 90008 x 9000016 pixels: cut at" in shot.notes[0]


def test_no_browser_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(RenderError, match=r"CHROMIUM names '/nowhere/chromium'.*apt-get install chromium"):
        find_chromium()
    monkeypatch.delenv("CHROMIUM")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RenderError, match="none of chromium, chromium-browser"):
        find_chromium()


@pytest.mark.skipif(os.name != "posix", reason="starts a shell script as the browser")
def test_a_browser_that_dies_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "chromium"
    fake.write_text("#!/bin/sh\necho cannot open display >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(fake))
    with pytest.raises(RenderError, match="ended unexpectedly: cannot open display"):
        screenshot("<p>")
