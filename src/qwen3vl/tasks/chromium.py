"""A headless Chromium of our own over its debugging pipe, cut off from everything; coding_browser.py says how.

with open_browser(viewport, seconds) as browser:
    session = browser.open_page()
    browser.call("Page.enable", session)
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from qwen3vl.errors import RenderError

PROCESS_KILOBYTES = 2 << 20
PAGE_ADDRESS = "http://page.invalid/"  # .invalid never resolves (RFC 2606); the page is handed over in memory
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline' data:; "
    "img-src data: blob:; font-src data:; media-src data: blob:; form-action 'none'; base-uri 'none'; "
    "sandbox allow-scripts allow-same-origin"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--disable-gpu", "--hide-scrollbars", "--mute-audio", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--disable-extensions", "--disable-default-apps", "--disable-breakpad", "--disable-crash-reporter", "--no-pings"),
    *("--disable-dev-shm-usage", "--disable-domain-reliability", "--disable-client-side-phishing-detection"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=http://127.0.0.1:1", "--proxy-bypass-list=<-loopback>"),
    *(
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    ),
    *("--js-flags=--max-old-space-size=512", "--font-render-hinting=none", "--force-color-profile=srgb"),
)
_ADDRESS = re.compile(r"'((?:https?|wss?|file|ftp):[^'\s]*)'")  # in Chromium's words on what the policy refused
# Chromium reads commands from descriptor 3 and answers on 4; the shell turns our two pipes into these.
SHELL = 'ulimit -d "$0" 2>/dev/null; ulimit -c 0; exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null'


def find_chromium() -> str:
    """The browser: the CHROMIUM environment variable, else the first of NAMES on the path. Raises RenderError."""
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else NAMES:
        if found := shutil.which(name):
            return found
    looked = f"CHROMIUM names {named!r}, which is no program" if named else f"none of {', '.join(NAMES)} is installed"
    raise RenderError(
        f"no Chromium: {looked}. Install it (Debian, Ubuntu: sudo apt-get install chromium; or sh "
        "scripts/system_packages.sh), or name one in the environment variable CHROMIUM"
    )


@contextlib.contextmanager
def open_browser(viewport: tuple[int, int], seconds: float) -> Iterator[Browser]:
    """A browser with `seconds` to live; see Browser.renew. At the end its whole process group is killed.

    Raises RenderError: none is installed, or not on this system.
    """
    if sys.platform == "win32":
        raise RenderError("rendering needs Linux or macOS: Chromium's debugging pipe is opened through a shell")
    program = find_chromium()
    # Chromium's helpers may still write while they die.
    with tempfile.TemporaryDirectory(prefix="qwen3vl-page-", ignore_cleanup_errors=True) as folder:
        command = [*_cut_network(), program, *FLAGS, f"--user-data-dir={folder}/profile"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
        # In a window lower than about 150 pixels Chromium never draws; the viewport is set apart from the window.
        command += [f"--window-size={max(800, viewport[0])},{max(600, viewport[1])}", "about:blank"]
        log = Path(folder, "log")
        with log.open("wb") as errors:
            process = subprocess.Popen(
                ["/bin/sh", "-c", SHELL, str(PROCESS_KILOBYTES), *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, cwd=folder, env={**os.environ, "HOME": folder, "TMPDIR": folder},
            )  # fmt: skip
            try:
                yield Browser(process, time.monotonic() + seconds, seconds, log)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@cache
def _cut_network() -> tuple[str, ...]:
    """As root on Linux: a namespace without a network. For other users that would cost Chromium's own sandbox."""
    unshare = shutil.which("unshare")
    if not unshare or os.geteuid() != 0:
        return ()
    works = subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode == 0
    return (unshare, "--net") if works else ()


class Browser:
    """The Chrome DevTools Protocol over two pipes: JSON messages, each ended by a zero byte."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, seconds: float, log: Path) -> None:
        assert process.stdin and process.stdout
        self._in, self._out = process.stdin, process.stdout
        self._deadline, self._seconds, self._log = deadline, seconds, log
        self._buffer = b""
        self._number = 0
        self.html = ""
        self.served = False
        self.refused: list[str] = []

    def renew(self, seconds: float) -> None:
        """Sets the deadline of all that follows anew."""
        self._deadline, self._seconds = time.monotonic() + seconds, seconds

    def open_page(self) -> str:
        """The session of the one page."""
        found = self.call("Target.getTargets")["targetInfos"]
        page = next((t["targetId"] for t in found if t["type"] == "page"), None)
        target = page or self.call("Target.createTarget", url="about:blank")["targetId"]
        return str(self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = self._send(method, session, params)
        while True:
            message = self._message(self._deadline)
            if message is not None and message.get("id") == number:
                if "error" in message:
                    raise RenderError(f"Chromium refused {method}: {message['error'].get('message')}")
                return message.get("result", {})

    def evaluate(self, session: str, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", session, expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RenderError(
                f"the page's script failed: {details.get('exception', details).get('description', details)}"
            )
        return answer["result"].get("value")

    def wait_for(self, *events: tuple[str, str | None]) -> str:
        """The first of these (event, frame) to come."""
        while True:
            message = self._message(self._deadline) or {}
            event = message.get("method"), message.get("params", {}).get("frameId")
            if event in events:
                return str(event[0])

    def linger(self, seconds: float) -> None:
        until = min(time.monotonic() + seconds, self._deadline)
        while time.monotonic() < until:
            self._message(until, patient=True)

    def _send(self, method: str, session: str | None, params: dict[str, Any]) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        data = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        try:
            self._in.write(data)
            self._in.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        return self._number

    def _message(self, until: float, patient: bool = False) -> dict[str, Any] | None:
        """The next message, after what it asks for was done; None when a patient wait ran out."""
        while b"\0" not in self._buffer:
            ready = select.select([self._out], [], [], max(0.0, until - time.monotonic()))[0]
            if not ready:
                if patient:
                    return None
                raise RenderError(f"the page was not done after {self._seconds:g} s: stopped")
            piece = os.read(self._out.fileno(), 1 << 20)
            if not piece:
                raise self._ended()
            self._buffer += piece
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        self._react(message)
        return message

    def _react(self, message: dict[str, Any]) -> None:
        method, params, session = message.get("method"), message.get("params", {}), message.get("sessionId")
        if method == "Fetch.requestPaused":
            self._answer_request(params, session)
        elif method == "Page.javascriptDialogOpening":
            self._send("Page.handleJavaScriptDialog", session, {"accept": False})
        elif method == "Log.entryAdded" and params["entry"].get("source") == "security":
            self.refused += _ADDRESS.findall(params["entry"]["text"])
        elif method in ("Inspector.targetCrashed", "Target.targetCrashed"):
            raise RenderError("the page crashed Chromium's renderer: it may have asked for too much memory")

    def _answer_request(self, params: dict[str, Any], session: str | None) -> None:
        """Hands the page over once; refuses all else. 204 leaves a page that wants to go elsewhere where it is."""
        request, url = params["requestId"], params["request"]["url"]
        if not self.served and url == PAGE_ADDRESS:
            self.served = True
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY}
            listed = [{"name": name, "value": value} for name, value in headers.items()]
            body = base64.b64encode(self.html.encode("utf-8", "replace")).decode()
            answer = {"requestId": request, "responseCode": 200, "responseHeaders": listed, "body": body}
            self._send("Fetch.fulfillRequest", session, answer)
            return
        self.refused.append(url)
        if params.get("resourceType") == "Document":
            self._send("Fetch.fulfillRequest", session, {"requestId": request, "responseCode": 204})
        else:
            self._send("Fetch.failRequest", session, {"requestId": request, "errorReason": "BlockedByClient"})

    def _ended(self) -> RenderError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return RenderError(f"Chromium ended unexpectedly: {lines[-1][:300] if lines else 'it said nothing'}")
