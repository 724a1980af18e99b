"""HTTP to one server: its address, the key, retries, time limits, and server-sent events.

Everything that goes wrong here is a RemoteError; none of its texts holds the key or another header's value.
"""

from __future__ import annotations

import email.utils
import json
import random
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, TypeVar

import httpx

from qwen3vl.errors import InvalidParams, RemoteError
from qwen3vl.remote.decode import error_message

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_MOST_BYTES = 256 << 20  # of an answer, or of one event; more is no chat completion
NO_KEY = "EMPTY"  # what servers without keys are given by custom
_SHORTEST_SECRET = 4  # characters; shorter values would garble messages rather than protect anything
_HINTS = {401: "check api_key", 403: "check api_key", 404: "check base_url and model"}
_sleep = time.sleep


class Transport:
    """Connections to one server, at most `concurrency` at a time. Thread-safe."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float,
        connect_timeout: float,
        max_retries: int,
        concurrency: int,
        headers: Mapping[str, str],
    ) -> None:
        self.base_url = normal_base_url(base_url)
        self.name = _without_credentials(self.base_url)
        self._timeout, self._max_retries = timeout, max_retries
        keyless = not api_key or any(name.lower() == "authorization" for name in headers)
        sent = {**({} if keyless else {"Authorization": f"Bearer {api_key}"}), **headers}
        for name, value in sent.items():
            if not isinstance(value, str) or not value.isascii() or not value.isprintable() or value != value.strip():
                raise InvalidParams(
                    f"the value of the header {name} must be printable ASCII without spaces around it "
                    "(it is not shown here)"
                )
        values = [value.removeprefix("Bearer ") for value in (api_key, *sent.values())]
        self._secrets = [value for value in values if len(value) >= _SHORTEST_SECRET and value != NO_KEY]
        self._slots = BoundedSemaphore(concurrency)
        self._concurrency, self._closed = concurrency, False
        self._client = httpx.Client(
            headers=sent,
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency),
        )

    def close(self) -> None:
        self._closed = True
        self._client.close()

    def check_open(self) -> None:
        if self._closed:
            raise self._error("this connection has been closed by close()")

    def get(self, path: str) -> Any:
        """The JSON of an answer."""
        return self._whole("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of an answer."""
        return self._whole("POST", path, _dump(body))

    def stream(self, path: str, body: dict[str, Any]) -> Generator[str, None, None]:
        """The data of each server-sent event, in order; retried only until the first byte of it has come.

        It ends where the server closes the connection, whether or not all has been said.
        """
        with self._slot():
            deadline = time.monotonic() + self._timeout
            response, first, rest = self._retrying(lambda: self._begin_stream(path, _dump(body), deadline))
            try:
                yield from events(_chained(first, rest))
            finally:
                response.close()

    # ---------------------------------------------------------------------------------- requests

    def _whole(self, method: str, path: str, content: bytes | None) -> Any:
        with self._slot():
            deadline = time.monotonic() + self._timeout
            data, content_type = self._retrying(lambda: self._read(method, path, content, deadline))
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._error(f"its answer is no JSON ({_excerpt(data, content_type)})", 200) from error

    def _read(self, method: str, path: str, content: bytes | None, deadline: float) -> tuple[bytes, str]:
        response = self._send(method, path, content)
        try:
            data = b"".join(self._chunks(response, deadline))
        finally:
            response.close()
        return data, response.headers.get("content-type", "")

    def _begin_stream(
        self, path: str, content: bytes, deadline: float
    ) -> tuple[httpx.Response, bytes, Iterator[bytes]]:
        response = self._send("POST", path, content)
        try:
            chunks = self._chunks(response, deadline)
            first = next(chunks, b"")
            kind = response.headers.get("content-type", "")
            if not first:
                raise _Failed(self._error("it closed the connection before the first word"), again=True)
            if kind.partition(";")[0].strip().lower() != "text/event-stream":
                raise self._error(f"asked for a stream, it answers with {_excerpt(first, kind)}", 200)
        except BaseException:
            response.close()
            raise
        return response, first, chunks

    def _send(self, method: str, path: str, content: bytes | None) -> httpx.Response:
        """An answer of status 200, its body unread."""
        request = self._client.build_request(
            method, f"{self.base_url}{path}", content=content, headers={"Content-Type": "application/json"}
        )
        with self._failures():
            response = self._client.send(request, stream=True)
        if response.status_code == 200:
            return response
        try:
            data = b"".join(self._chunks(response, time.monotonic() + min(self._timeout, 30)))
        except (RemoteError, _Failed):
            data = b""  # the status alone must do
        finally:
            response.close()
        raise self._refusal(response, data)

    def _chunks(self, response: httpx.Response, deadline: float) -> Iterator[bytes]:
        """The body as it comes. The deadline holds for servers that drip, too, where no single read times out."""
        size = 0
        with self._failures():
            for chunk in response.iter_bytes():
                size += len(chunk)
                if time.monotonic() > deadline:
                    raise self._error(f"no complete answer within {self._timeout:g} s (timeout)")
                if size > _MOST_BYTES:
                    raise self._error(f"its answer is longer than {_MOST_BYTES} bytes")
                yield chunk

    def _retrying(self, attempt: Callable[[], T]) -> T:
        for number in range(self._max_retries + 1):
            try:
                return attempt()
            except _Failed as failed:
                pause = min(_FIRST_PAUSE * 2**number * random.uniform(0.75, 1.25), _LONGEST_PAUSE)
                if failed.wait is not None:
                    pause = failed.wait
                if not failed.again or number == self._max_retries or pause > _LONGEST_PAUSE:
                    raise failed.error from failed.__cause__
                _sleep(pause)
        raise AssertionError("unreachable")

    @contextmanager
    def _slot(self) -> Iterator[None]:
        self.check_open()
        if not self._slots.acquire(timeout=self._timeout):
            raise self._error(
                f"{self._concurrency} requests are under way already (concurrency), and none ended within "
                f"{self._timeout:g} s; a stream counts until it is read to its end or closed"
            )
        try:
            yield
        finally:
            self._slots.release()

    # ------------------------------------------------------------------------------------ errors

    def _error(self, what: str, status: int | None = None) -> RemoteError:
        return RemoteError(self.redacted(f"{self.name}: {what}"), status)

    def redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise _Failed(self._error("no connection within connect_timeout"), again=True) from error
        except httpx.TimeoutException as error:
            # The server may still be at work on it: asking again would only make it slower.
            raise _Failed(self._error(f"no answer within {self._timeout:g} s (timeout)"), again=False) from error
        except httpx.ConnectError as error:
            raise _Failed(self._error(f"cannot be reached ({error})"), again=True) from error
        except (httpx.TransportError, httpx.StreamError, httpx.InvalidURL, httpx.DecodingError) as error:
            what = str(error) or type(error).__name__
            raise _Failed(self._error(f"the connection broke off ({what})"), again=True) from error

    def _refusal(self, response: httpx.Response, data: bytes) -> _Failed:
        status = response.status_code
        hint = f"; {_HINTS[status]}" if status in _HINTS else ""
        if 300 <= status < 400:
            hint = "; it points elsewhere: give that address as base_url"
        said = _excerpt(data, response.headers.get("content-type", ""))
        again = status in (408, 429) or status >= 500
        wait = _retry_after(response.headers.get("retry-after"))
        if again and wait is not None and wait > _LONGEST_PAUSE:
            hint = f"; it asks to wait {wait:.0f} s"
        return _Failed(self._error(f"HTTP {status}: {said}{hint}", status), again=again, wait=wait)


class _Failed(Exception):
    """An attempt that failed: what to tell, whether to try again, and after how many seconds if the server says."""

    def __init__(self, error: RemoteError, *, again: bool, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.again, self.wait = error, again, wait


def events(chunks: Iterator[bytes]) -> Iterator[str]:
    """The data of each server-sent event (HTML standard, 9.2). Bytes, since str.splitlines would also cut at
    characters such as U+2028 that JSON may hold."""
    data: list[bytes] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield b"\n".join(data).decode("utf-8", "replace")
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    if data:  # a last event without its blank line
        yield b"\n".join(data).decode("utf-8", "replace")


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    for chunk in chunks:
        *whole, tail = chunk.split(b"\n")
        for line in whole:
            yield (b"".join(rest) + line).removesuffix(b"\r")
            rest = []
        rest.append(tail)
    if last := b"".join(rest):
        yield last


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    try:
        yield from rest
    except _Failed as failed:  # bytes have come: too late to try again
        raise failed.error from failed.__cause__


def normal_base_url(url: str) -> str:
    """The address that "/chat/completions" is put behind. "/v1" is added where the path names no version.

    http://host:8000, http://host:8000/ and http://host:8000/v1/chat/completions are http://host:8000/v1.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidParams("base_url is no URL") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InvalidParams("base_url must begin with http:// or https:// and a host")
    if parsed.query or parsed.fragment:
        raise InvalidParams("base_url must not have a query or a fragment")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions")
    if not re.search(r"/v\d", path):
        path += "/v1"
    return str(parsed.copy_with(path=path))


def _without_credentials(url: str) -> str:
    return str(httpx.URL(url).copy_with(userinfo=b""))


def _dump(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode("ascii")


def _excerpt(data: bytes, content_type: str) -> str:
    """What a person should see of a body: a JSON error's message, a page's title, else its beginning."""
    text = data[:100_000].decode("utf-8", "replace").strip()
    try:
        return error_message(json.loads(data)) if data else "an empty body"
    except (ValueError, RecursionError):
        pass
    if "html" in content_type or text[:15].lower().startswith(("<!doctype", "<html")):
        title = re.search(r"<title[^>]*>(.{0,200}?)</title>", text, re.IGNORECASE | re.DOTALL)
        return f"an HTML page{f' titled {title[1].strip()!r}' if title else ''}"
    return f"{content_type or 'no content type'}: {text[:300]!r}"


def _retry_after(value: str | None) -> float | None:
    """Seconds, from seconds or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
