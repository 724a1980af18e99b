"""The handle of a remote model: `model = qwen3vl.connect(...)`, used as the one from `qwen3vl.load`."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import Any, Literal, TypeVar

import httpx

from qwen3vl.errors import InvalidParams, Qwen3VLError, RemoteError
from qwen3vl.processor.messages import plain_json
from qwen3vl.processor.policy import MediaPolicy
from qwen3vl.remote.decode import Answer
from qwen3vl.remote.dialects import Dialect, DialectName, dialect_named, dialect_of_host, dialect_of_models
from qwen3vl.remote.encode import encode_messages
from qwen3vl.remote.sampling import sampling_fields, tool_fields
from qwen3vl.remote.transport import NO_KEY, Transport
from qwen3vl.settings import MediaOptions, SamplingParams, check_choice, check_integer, check_number
from qwen3vl.turns import chat_params, chat_turn
from qwen3vl.types import (
    Completion,
    Delta,
    MediaReceipt,
    Messages,
    PictureSource,
    Request,
    Tool,
    ToolChoice,
    VideoSource,
)

T = TypeVar("T")

_PATH = "/chat/completions"
_OURS = ("model", "messages", "stream", "stream_options")  # fields that extra_body may not replace


def connect(
    base_url: str,
    model: str,
    *,
    api_key: str | None = None,
    dialect: DialectName = "auto",
    timeout: float = 3600.0,
    connect_timeout: float = 10.0,
    max_retries: int = 2,
    concurrency: int = 8,
    policy: MediaPolicy | None = None,
    headers: Mapping[str, str] | None = None,
    send_urls: bool = False,
    videos: Literal["native", "frames"] = "native",
    extra_body: Mapping[str, Any] | None = None,
) -> RemoteModel:
    """A model behind an OpenAI-compatible server. Nothing is sent yet.

    Args:
        base_url: "http://host:8000/v1", with or without the "/v1".
        model: the name under which the server knows the model.
        api_key: default: the environment's OPENAI_API_KEY, else "EMPTY"; "" sends none.
        dialect: what the server understands beyond OpenAI's API; "auto" asks its list of models at first use.
        timeout: seconds for a whole answer; `connect_timeout` for the connection.
        max_retries: further attempts after lost connections, HTTP 408, 429 and 5xx, with growing pauses or
            the server's Retry-After; never once a byte of a stream has come.
        concurrency: most requests under way at a time, streams being read included.
        policy: where media may come from (default: local files and https).
        headers: sent with every request, beside Authorization.
        send_urls: leave it to the server to fetch http(s) URLs, instead of sending what they hold.
        videos: "native" as the dialect takes them; "frames" always samples here and sends pictures with
            their times, which honours every MediaOption.
        extra_body: raw fields for every request, such as {"enable_thinking": True}.

    Raises:
        InvalidParams.
    """
    check_number("timeout", timeout, 0, math.inf, required=True, open_low=True, open_high=True)
    check_number("connect_timeout", connect_timeout, 0, math.inf, required=True, open_low=True, open_high=True)
    check_integer("max_retries", max_retries, minimum=0, required=True)
    check_integer("concurrency", concurrency, minimum=1, required=True)
    check_choice("videos", videos, ("native", "frames"))
    if not isinstance(model, str) or not model:
        raise InvalidParams("model must be the name under which the server knows it")
    extra = plain_json(extra_body or {}, "extra_body")
    if clash := [name for name in _OURS if name in extra]:
        raise InvalidParams(f"extra_body must not hold {', '.join(clash)}")
    named = dialect_named(dialect)
    transport = Transport(
        base_url,
        api_key if api_key is not None else os.environ.get("OPENAI_API_KEY") or NO_KEY,
        timeout=timeout,
        connect_timeout=connect_timeout,
        max_retries=max_retries,
        concurrency=concurrency,
        headers=headers or {},
    )
    return RemoteModel(
        transport,
        model,
        dialect=named,
        policy=policy or MediaPolicy.library(),
        concurrency=concurrency,
        send_urls=send_urls,
        whole_videos=videos == "native",
        extra_body=extra,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """One checked request, ready to be sent."""

    body: dict[str, Any]
    receipts: tuple[MediaReceipt, ...]
    n: int


class RemoteModel:
    """A `Generator` over HTTP. Thread-safe; use it in a `with` statement, or call `close`.

    `params=None` leaves the choice of tokens to the server's own defaults. Given params are stated in full.
    """

    def __init__(
        self,
        transport: Transport,
        model: str,
        *,
        dialect: Dialect | None,
        policy: MediaPolicy,
        concurrency: int,
        send_urls: bool,
        whole_videos: bool,
        extra_body: dict[str, Any],
    ) -> None:
        self.name = model
        self._transport, self._policy, self._extra_body = transport, policy, extra_body
        self._send_urls, self._whole_videos = send_urls, whole_videos
        self._dialect = dialect or dialect_of_host(httpx.URL(transport.base_url).host)
        self._asking = Lock()
        self._concurrency = concurrency
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="qwen3vl-remote")

    def __repr__(self) -> str:
        return f"RemoteModel({self._transport.name!r}, {self.name!r})"

    def __enter__(self) -> RemoteModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up connections and requests that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    @property
    def dialect(self) -> Dialect:
        """What the server understands; with "auto" it is asked once. Raises RemoteError if it cannot be reached."""
        with self._asking:
            if self._dialect is None:
                self._dialect = self._ask_dialect()
            return self._dialect

    def chat(
        self,
        question: str,
        images: Sequence[PictureSource] = (),
        videos: Sequence[VideoSource] = (),
        *,
        system: str | None = None,
        history: Messages = (),
        params: SamplingParams | None = None,
        media: MediaOptions | None = None,
        **settings: Any,
    ) -> Completion:
        """Ask one question about pictures and videos; greedy unless `params` or `settings` say otherwise.

        `history` are earlier turns, the last answer included (`completion.as_message()`). `settings` are
        fields of SamplingParams: max_tokens=100, preset="vl".
        """
        params = chat_params(params, settings)
        return self.generate(chat_turn(question, images, videos, system, history), params, media=media)

    def generate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Completion:
        """Answer once. Raises a Qwen3VLError; what the server cannot honour is refused before it is asked."""
        work = self._check(messages, params, media, tools, tool_choice)
        answer = Answer(work.n, work.receipts, self.name)
        with self._redacted():
            for _ in answer.push(self._transport.post(_PATH, work.body)):
                pass
            *_, last = answer.finish()
        assert last.completion is not None
        return last.completion

    def stream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Iterator[Delta]:
        """Answer piece by piece; the last Delta carries the Completion.

        Bad requests raise here; the request goes out when the first piece is asked for. An answer that is
        cut raises RemoteError, whose `partial` is the text so far.
        """
        return self._stream(self._check(messages, params, media, tools, tool_choice))

    def generate_many(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer in order, `concurrency` at a time; a failure is that Completion's `error`.

        `requests` is read only a little ahead of what has been answered.
        """
        waiting: deque[Future[Completion]] = deque()
        try:
            for request in requests:
                self._transport.check_open()
                waiting.append(self._pool.submit(self._one_of_many, request))
                if len(waiting) >= 2 * self._concurrency:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    async def agenerate(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Completion:
        """`generate` in a thread."""
        return await self._in_thread(
            lambda: self.generate(messages, params, media=media, tools=tools, tool_choice=tool_choice)
        )

    async def astream(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        media: MediaOptions | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> AsyncIterator[Delta]:
        """`stream`, each piece waited for in a thread."""
        work = await self._in_thread(lambda: self._check(messages, params, media, tools, tool_choice))
        deltas, turn = self._stream(work), Lock()

        def following() -> Delta | None:
            with turn:
                return next(deltas, None)

        def end() -> None:
            with turn:  # a cancelled reader may still be waiting for its piece
                deltas.close()

        try:
            while (delta := await self._in_thread(following)) is not None:
                yield delta
        finally:
            try:
                self._pool.submit(end)
            except RuntimeError:  # closed meanwhile
                end()

    # ------------------------------------------------------------------------------------ inside

    def _check(
        self,
        messages: Messages,
        params: SamplingParams | None,
        media: MediaOptions | None,
        tools: Sequence[Tool] | None,
        tool_choice: ToolChoice | None,
    ) -> _Work:
        dialect = self.dialect
        settings = {**sampling_fields(params, dialect), **tool_fields(tools, tool_choice, dialect)}
        encoded = encode_messages(
            messages,
            media,
            dialect,
            self._policy,
            send_urls=self._send_urls,
            whole_videos=self._whole_videos,
        )
        fields = {**settings, **encoded.fields}
        if clash := sorted(fields.keys() & self._extra_body.keys()):
            raise InvalidParams(f"{', '.join(clash)}: set by this request and by extra_body")
        body = {"model": self.name, "messages": encoded.messages, **fields, **self._extra_body}
        return _Work(body, tuple(encoded.receipts), params.n if params is not None else 1)

    def _stream(self, work: _Work) -> Generator[Delta, None, None]:
        answer = Answer(work.n, work.receipts, self.name)
        body = {**work.body, "stream": True, "stream_options": {"include_usage": True}}
        try:
            with self._redacted(), closing(self._transport.stream(_PATH, body)) as events:
                for data in events:
                    if data.strip() == "[DONE]":
                        break
                    yield from answer.push(_event(data))
                if not answer.complete:
                    raise RemoteError(f"{self._transport.name}: the answer was cut off: the stream ended in the middle")
                yield from answer.finish()
        except RemoteError as error:
            error.partial = answer.partial
            raise

    def _one_of_many(self, request: Request) -> Completion:
        try:
            completion = self.generate(
                request.messages,
                request.params,
                media=request.media,
                tools=request.tools,
                tool_choice=request.tool_choice,
            )
            return replace(completion, id=request.id)
        except Qwen3VLError as error:
            return Completion((), model=self.name, id=request.id, error=error)

    def _ask_dialect(self) -> Dialect:
        """From the list of models. A server without one is taken for plain OpenAI; one that fails is an error."""
        try:
            return dialect_of_models(self._transport.get("/models"), self.name)
        except RemoteError as error:
            if error.status in (200, 400, 404, 405, 501):
                return dialect_of_models(None, self.name)
            raise

    def _redacted(self) -> _Redacting:
        return _Redacting(self._transport)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """In this model's own pool: asyncio's default one is small, and shared with others."""
        self._transport.check_open()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


class _Redacting:
    """Errors made from what the server said pass here: it may have echoed the key."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, RemoteError):
            error.args = (self._transport.redacted(str(error)), *error.args[1:])


def _event(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"the server sent an event that is no JSON: {data[:200]!r}") from error
