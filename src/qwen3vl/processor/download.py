"""Download one file over http(s) so that neither the server nor its DNS can lead it astray.

Each hop of a redirect chain is checked anew: scheme, host, and every address the host resolves to. The
connection is made to an address that was checked, not to the name, so a second DNS answer (rebinding)
changes nothing. One deadline covers resolving, connecting, headers and body. Proxies from the
environment are not used: behind a proxy the address could not be checked.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpcore
import httpx

from qwen3vl.errors import MediaDecodeError, MediaError, MediaForbidden, MediaNotFound, MediaTimeout, MediaTooLarge
from qwen3vl.processor.policy import MediaPolicy

_USER_AGENT = "qwen3vl"
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def download(url: str, name: str, policy: MediaPolicy, *, to_file: bool = False) -> bytes | Path:
    """The body of `url`, or with `to_file` the path of a temporary file that the caller must delete.

    Args:
        name: `url` as it may be shown in messages.

    Raises:
        MediaForbidden, MediaNotFound (the server has no such file, or cannot be reached),
        MediaTooLarge, MediaTimeout, MediaDecodeError (the transfer broke off).
    """
    deadline = Deadline(policy.timeout, name)
    try:
        return _follow(httpx.URL(url), name, policy, deadline, to_file)
    except MediaError:
        raise
    except httpx.InvalidURL as error:
        raise MediaNotFound(f"{name}: not a valid URL ({error})") from None
    except httpcore.TimeoutException:
        raise deadline.error() from None
    except httpcore.RemoteProtocolError as error:
        raise MediaDecodeError(f"{name}: the server's answer broke off or is not HTTP ({error})") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, OSError, ValueError) as error:
        raise MediaNotFound(f"{name}: cannot be reached ({error or type(error).__name__})") from error


class Deadline:
    """The moment by which a whole job must be done."""

    def __init__(self, seconds: float, name: str) -> None:
        self.seconds, self.name = seconds, name
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; raises MediaTimeout when there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise self.error()
        return left

    def error(self) -> MediaTimeout:
        return MediaTimeout(f"{self.name}: not downloaded within {self.seconds:g} s (MediaPolicy.timeout)")


def _follow(url: httpx.URL, name: str, policy: MediaPolicy, deadline: Deadline, to_file: bool) -> bytes | Path:
    for _ in range(policy.max_redirects + 1):
        _check_url(url, name, policy)
        with (
            httpx.Client(transport=_Transport(policy, deadline), trust_env=False) as client,
            client.stream("GET", url, headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}) as response,
        ):
            location = response.headers.get("location")
            if response.status_code not in _REDIRECTS or not location:
                return _receive(response, name, policy, to_file)
            url = url.join(location)
    raise MediaNotFound(f"{name}: more than {policy.max_redirects} redirects (MediaPolicy.max_redirects)")


def _check_url(url: httpx.URL, name: str, policy: MediaPolicy) -> None:
    if url.scheme not in policy.schemes:
        allowed = ", ".join(policy.schemes) or "none"
        raise MediaForbidden(f"{name}: {url.scheme}: is not allowed here, allowed: {allowed} (MediaPolicy.schemes)")
    if not url.host:
        raise MediaForbidden(f"{name}: no host in this URL")
    if policy.allowed_hosts is not None and not any(_host_matches(url.host, h) for h in policy.allowed_hosts):
        raise MediaForbidden(f"{name}: host {url.host} is not allowed here (MediaPolicy.allowed_hosts)")


def _host_matches(host: str, pattern: str) -> bool:
    host = host.lower().rstrip(".")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _receive(response: httpx.Response, name: str, policy: MediaPolicy, to_file: bool) -> bytes | Path:
    if response.status_code != 200:
        raise MediaNotFound(f"{name}: the server answers {response.status_code} {response.reason_phrase}")
    length = response.headers.get("content-length", "")
    if length.isdecimal():
        _check_size(int(length), name, policy)
    chunks = _limited(_decoded(response, name), name, policy)
    if not to_file:
        return b"".join(chunks)
    handle, path = tempfile.mkstemp(prefix="qwen3vl-")
    try:
        with cast(BinaryIO, os.fdopen(handle, "wb")) as file:
            file.writelines(chunks)
    except BaseException:
        os.unlink(path)
        raise
    return Path(path)


def _check_size(size: int, name: str, policy: MediaPolicy) -> None:
    if size > policy.max_bytes:
        raise MediaTooLarge(
            f"{name}: {size} bytes or more, above the limit of {policy.max_bytes} (MediaPolicy.max_bytes)"
        )


def _limited(chunks: Iterable[bytes], name: str, policy: MediaPolicy) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        _check_size(size, name, policy)
        yield chunk


def _decoded(response: httpx.Response, name: str) -> Iterator[bytes]:
    """The body, unpacked in pieces of bounded size where the server compressed it unasked."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        yield from response.iter_raw(_CHUNK)
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise MediaDecodeError(f"{name}: the server sends content-encoding {encoding!r}, which was not asked for")
    unpacker = zlib.decompressobj(wbits=47 if "gzip" in encoding else 15)
    try:
        for chunk in response.iter_raw(_CHUNK):
            while chunk:
                yield unpacker.decompress(chunk, _CHUNK)
                chunk = unpacker.unconsumed_tail
    except zlib.error as error:
        raise MediaDecodeError(f"{name}: the server's compressed answer is damaged ({error})") from error
    if not unpacker.eof:
        raise MediaDecodeError(f"{name}: the server's compressed answer ends early")


# ------------------------------------------------------------------------------------- connecting


def resolve(host: str, port: int, deadline: Deadline) -> list[str]:
    """All addresses of `host`. In a thread, since the system's resolver knows no time limit."""
    answer: list[Any] = []

    def look_up() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)

    thread = threading.Thread(target=look_up, daemon=True, name="qwen3vl-resolve")
    thread.start()
    thread.join(deadline.left())
    if not answer:
        raise deadline.error()
    if isinstance(answer[0], Exception):
        raise MediaNotFound(f"{deadline.name}: host {host} is not known ({answer[0]})")
    return list(dict.fromkeys(str(info[4][0]) for info in answer[0]))


def is_public(address: str) -> bool:
    """Whether `address` is on the open internet; what an IPv6 address embeds must be so as well."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded: list[ipaddress.IPv4Address | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        inner = [e for e in embedded if e is not None]
        if inner:
            return all(e.is_global and not e.is_multicast for e in inner)
    return ip.is_global and not ip.is_multicast


class _Backend(httpcore.NetworkBackend):
    """Connects to checked addresses only, and never waits beyond the deadline."""

    def __init__(self, policy: MediaPolicy, deadline: Deadline) -> None:
        self.policy, self.deadline = policy, deadline

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        addresses = resolve(host, port, self.deadline)
        if not self.policy.allow_private_addresses and not all(map(is_public, addresses)):
            raise MediaForbidden(
                f"{self.deadline.name}: host {host} has a private address (MediaPolicy.allow_private_addresses)"
            )
        for address in addresses[:-1]:
            try:
                return self._connect(address, port)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(addresses[-1], port)

    def _connect(self, address: str, port: int) -> httpcore.NetworkStream:
        stream = httpcore.SyncBackend().connect_tcp(address, port, timeout=self.deadline.left())
        return _Stream(stream, self.deadline)


class _Stream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline: a server that drips cannot stretch it."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self.inner, self.deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.inner.read(max_bytes, self.deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, self.deadline.left())

    def close(self) -> None:
        self.inner.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, self.deadline.left()), self.deadline)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


@cache
def _ssl_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self.response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from cast(Iterable[bytes], self.response.stream)

    def close(self) -> None:
        self.response.close()


class _Transport(httpx.BaseTransport):
    """httpx over httpcore with `_Backend` (httpx's own transport offers no place for one)."""

    def __init__(self, policy: MediaPolicy, deadline: Deadline) -> None:
        context = _ssl_context() if "https" in policy.schemes else None
        self.pool = httpcore.ConnectionPool(ssl_context=context, network_backend=_Backend(policy, deadline))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = self.pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    def close(self) -> None:
        self.pool.close()
