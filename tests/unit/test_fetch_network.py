"""Downloads from a loopback server that behaves badly in every way we defend against."""

from __future__ import annotations

import gc
import gzip
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import ClassVar

import pytest

from qwen3vl.errors import MediaDecodeError, MediaForbidden, MediaNotFound, MediaTimeout, MediaTooLarge
from qwen3vl.processor import download
from qwen3vl.processor.fetch import MediaPolicy, fetch

POLICY = MediaPolicy(schemes=("http",), allow_private_addresses=True, max_bytes=100_000, timeout=20)
BODY = bytes(range(256)) * 100


class Handler(BaseHTTPRequestHandler):
    stop = Event()
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"content_length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.seen.append((self.headers["host"], self.headers["authorization"]))
        path = self.path.partition("?")[0].strip("/")
        getattr(self, f"get_{path}", self.get_missing)()

    def get_missing(self) -> None:
        self.answer(b"no", 404)

    def get_forbidden(self) -> None:
        self.answer(b"no", 403)

    def get_good(self) -> None:
        self.answer(BODY)

    def get_redirect(self) -> None:
        self.answer(b"", 302, location="/good")

    def get_loop(self) -> None:
        self.answer(b"", 302, location="/loop")

    def get_to_file(self) -> None:
        self.answer(b"", 302, location="file:///etc/hostname")

    def get_to_private(self) -> None:
        self.answer(b"", 302, location="http://10.1.2.3/secret")

    def get_too_long(self) -> None:
        self.answer(b"x" * 10, content_length="5000000")

    def get_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while not self.stop.is_set():
            try:
                self.wfile.write(b"x" * 10_000)
            except OSError:
                return

    def get_cut(self) -> None:
        self.answer(BODY, content_length=str(len(BODY) + 10))
        self.close_connection = True

    def get_drip(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "100000")
        self.end_headers()
        self.drip(b"x")

    def get_drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-long: ")
        self.drip(b"y")

    def drip(self, byte: bytes) -> None:
        while not self.stop.wait(0.05):
            try:
                self.wfile.write(byte)
                self.wfile.flush()
            except OSError:
                return

    def get_gzip(self) -> None:
        self.answer(gzip.compress(BODY), content_encoding="gzip")

    def get_bomb(self) -> None:
        self.answer(gzip.compress(bytes(50_000_000)), content_encoding="gzip")

    def get_cut_gzip(self) -> None:
        self.answer(gzip.compress(BODY)[:-20], content_encoding="gzip")

    def get_not_gzip(self) -> None:
        self.answer(b"junk junk junk", content_encoding="gzip")

    def get_brotli(self) -> None:
        self.answer(b"junk", content_encoding="br")

    def get_junk(self) -> None:
        self.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
        self.close_connection = True


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Handler.stop.set()
        running.shutdown()


@pytest.mark.parametrize("path", ["good", "redirect", "gzip"])
def test_download_into_memory_and_into_a_file(server: str, path: str) -> None:
    assert fetch(f"{server}/{path}", POLICY).data == BODY
    media = fetch(f"{server}/{path}", POLICY, to_file=True)
    place = media.path
    assert place is not None
    assert place.read_bytes() == BODY
    del media
    gc.collect()
    assert not place.exists()


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("missing", MediaNotFound, "404"),
        ("forbidden", MediaNotFound, "403"),
        ("loop", MediaNotFound, "more than 5 redirects"),
        ("to_file", MediaForbidden, "file: is not allowed"),
        ("too_long", MediaTooLarge, "5000000 bytes"),
        ("endless", MediaTooLarge, "limit of 100000"),
        ("cut", MediaDecodeError, "broke off"),
        ("bomb", MediaTooLarge, "limit of 100000"),
        ("cut_gzip", MediaDecodeError, "ends early"),
        ("not_gzip", MediaDecodeError, "damaged"),
        ("brotli", MediaDecodeError, "content-encoding 'br'"),
        ("junk", MediaDecodeError, "not HTTP"),
    ],
)
@pytest.mark.parametrize("to_file", [False, True])
def test_bad_answers(server: str, path: str, error: type[Exception], words: str, to_file: bool) -> None:
    with pytest.raises(error, match=words) as caught:
        fetch(f"{server}/{path}?token=secret", POLICY, to_file=to_file)
    assert "secret" not in str(caught.value)
    assert f"/{path}" in str(caught.value)


@pytest.mark.parametrize("path", ["drip", "drip_headers"])
def test_a_dripping_server_meets_the_total_deadline(server: str, path: str) -> None:
    """Each single byte comes in time: a limit on single reads would wait for hours."""
    with pytest.raises(MediaTimeout, match=r"0\.5 s"):
        fetch(f"{server}/{path}", replace(POLICY, timeout=0.5))


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MediaNotFound, match="cannot be reached"):
        fetch(f"http://127.0.0.1:{port}/a.png", POLICY)


@pytest.mark.parametrize("url", ["http://", "http:///a.png", "http://[::1/a.png", "http://host:port/a.png"])
def test_malformed_urls(url: str) -> None:
    with pytest.raises((MediaNotFound, MediaForbidden)):
        fetch(url, POLICY)


PRIVATE = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
           "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1",
           "255.255.255.255", "::", "2001:db8::1"]  # fmt: skip


def test_which_addresses_are_public() -> None:
    assert [a for a in PRIVATE if download.is_public(a)] == []
    assert all(map(download.is_public, ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_refused_however_written(server: str, host: str) -> None:
    port = server.rpartition(":")[2]
    with pytest.raises((MediaForbidden, MediaNotFound)) as caught:
        fetch(f"http://{host}:{port}/good", replace(POLICY, allow_private_addresses=False))
    assert "private address" in str(caught.value) or "not known" in str(caught.value)


def resolver(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Replace DNS: each call gives the next answer, then the last one again. Returns the hosts asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple]:
        if host[0].isdigit():
            return real(host, port, *args, **kwargs)
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(download.socket, "getaddrinfo", getaddrinfo)
    return asked


def connections(monkeypatch: pytest.MonkeyPatch, port: int) -> list[str]:
    """Lead every connection to the loopback server; returns the addresses that were asked for."""
    made: list[str] = []
    real = download.httpcore.SyncBackend.connect_tcp

    def connect_tcp(self: object, host: str, _: int, **kwargs: object) -> object:
        made.append(host)
        return real(self, "127.0.0.1", port, timeout=kwargs["timeout"])

    monkeypatch.setattr(download.httpcore.SyncBackend, "connect_tcp", connect_tcp)
    return made


def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(MediaForbidden, match="private address"):
        fetch("http://example.com/good", replace(POLICY, allow_private_addresses=False))


def test_the_connection_goes_to_the_checked_address(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second DNS answer (rebinding) is never asked for."""
    asked = resolver(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    made = connections(monkeypatch, int(server.rpartition(":")[2]))
    Handler.seen.clear()
    media = fetch("http://user:key@example.com/good", replace(POLICY, allow_private_addresses=False))
    assert media.data == BODY
    assert (asked, made) == (["example.com"], ["93.184.216.34"])
    assert Handler.seen[0][0] == "example.com"
    assert Handler.seen[0][1].startswith("Basic ")


def test_redirects_are_checked_again(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver(monkeypatch, ["93.184.216.34"], ["10.1.2.3"])
    made = connections(monkeypatch, int(server.rpartition(":")[2]))
    policy = replace(POLICY, allow_private_addresses=False)
    with pytest.raises(MediaForbidden, match=r"host 10\.1\.2\.3 has a private address"):
        fetch("http://example.com/to_private", policy)
    assert made == ["93.184.216.34"]


def test_allowed_hosts(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = replace(POLICY, allowed_hosts=("Example.com", "*.example.org"))
    resolver(monkeypatch, ["93.184.216.34"])
    connections(monkeypatch, int(server.rpartition(":")[2]))
    for host in ("example.com", "EXAMPLE.com", "a.b.example.org"):
        assert fetch(f"http://{host}/good", policy).data == BODY
    for host in ("sub.example.com", "example.org", "badexample.org", "example.com.evil.net"):
        with pytest.raises(MediaForbidden, match="allowed_hosts"):
            fetch(f"http://{host}/good", policy)
    with pytest.raises(MediaForbidden, match="allowed_hosts"):
        fetch("http://example.com/to_private", policy)


def test_slow_resolver_and_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    release = Event()
    monkeypatch.setattr(download.socket, "getaddrinfo", lambda *a, **k: release.wait(20))
    with pytest.raises(MediaTimeout):
        fetch("http://example.com/a.png", replace(POLICY, timeout=0.2))
    release.set()

    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(download.socket, "getaddrinfo", unknown)
    with pytest.raises(MediaNotFound, match=r"host nowhere\.invalid is not known"):
        fetch("http://nowhere.invalid/a.png", POLICY)
