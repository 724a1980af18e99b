"""What `connect` makes of what a server sends: answers, streams, refusals, nonsense, silence and lost connections."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qwen3vl
from qwen3vl.errors import InvalidMessage, RemoteError, UnsupportedOption
from qwen3vl.remote import RemoteModel, transport
from qwen3vl.remote.decode import Answer
from qwen3vl.tasks.coordinates import Box
from qwen3vl.tasks.grounding import locate, locate_prompt
from qwen3vl.types import Completion, Delta, Generator, Request, SamplingParams, ToolCall, Usage
from tests.fixtures.openai_server import (
    DONE,
    OpenAIServer,
    Reply,
    Seen,
    chunk,
    completion,
    event,
    failure,
    models,
    reply_json,
    stream_of,
    streamed,
)
from tests.unit.tasks.recorded import recorded


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not really made."""
    made: list[float] = []
    monkeypatch.setattr(transport, "_sleep", made.append)
    return made


@pytest.fixture(autouse=True)
def _no_pauses(pauses: list[float]) -> None:
    pass


class Place:
    """One server for the file; `script` is set by each test."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.server = OpenAIServer(self._next)

    def _next(self, seen: Seen) -> Reply:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def asked(self, *replies: Reply, **options: Any) -> RemoteModel:
        self.script = list(replies)
        self.server.requests.clear()
        return qwen3vl.connect(self.server.url, "m", **{"dialect": "openai", **options})


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = Place()
    with place.server:
        yield place


def failing(model: RemoteModel, messages: str = "hi", **options: Any) -> RemoteError:
    with model, pytest.raises(RemoteError) as caught:
        model.generate(messages, **options)
    return caught.value


def cut(model: RemoteModel) -> tuple[list[Delta], RemoteError]:
    """What a stream gave before it failed."""
    deltas: list[Delta] = []
    with model, pytest.raises(RemoteError) as caught:
        deltas.extend(model.stream("hi"))
    return deltas, caught.value


# --------------------------------------------------------------------------------- whole answers


def test_it_is_a_generator(place: Place) -> None:
    with place.asked(completion()) as model:
        assert isinstance(model, Generator)


def test_everything_of_a_whole_answer(place: Place) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "zoom", "arguments": '{"x": 1}'}}
    broken = {"id": "c2", "type": "function", "function": {"name": "zoom", "arguments": '{"x": '}}
    usage = {
        "prompt_tokens": 50,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 10, "image_tokens": 30, "video_tokens": 5, "text_tokens": 15},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    reply = completion("see", finish="tool_calls", usage=usage, reasoning_content="think", tool_calls=[call, broken])
    with place.asked(reply) as model:
        answer = model.generate("hi")
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("see", "think", "tool_calls")
    assert answer.tool_calls == (ToolCall("zoom", {"x": 1}, "c1"), ToolCall("zoom", '{"x": ', "c2"))
    assert answer.usage == Usage(50, 20, 30, 5, 10, 4)
    assert (answer.id, answer.model) == ("chatcmpl-1", "m")


def test_vllms_and_ollamas_spellings(place: Place) -> None:
    call = {"function": {"name": "zoom", "arguments": {"x": 1}}}
    with place.asked(completion(None, reasoning="think", tool_calls=[call])) as model:
        answer = model.generate("hi")
    assert (answer.text, answer.reasoning) == ("", "think")
    assert answer.tool_calls == (ToolCall("zoom", {"x": 1}),) and answer.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("word", "finish", "reason"),
    [("stop", "stop", None), ("length", "length", None), ("function_call", "tool_calls", None),
     ("abort", "abort", None), ("content_filter", "error", "content_filter")],
)  # fmt: skip
def test_finish_reasons(place: Place, word: str, finish: str, reason: str | None) -> None:
    with place.asked(completion(finish=word)) as model:
        choice = model.generate("hi").first
    assert (choice.finish_reason, choice.stop_reason) == (finish, reason)


def test_stop_reason(place: Place) -> None:
    each = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    for extra in ({"stop_reason": "END"}, {"matched_stop": "END"}):
        with place.asked(reply_json({"choices": [{**each, **extra}]})) as model:
            assert model.generate("hi").first.stop_reason == "END"


def test_several_choices_in_any_order(place: Place) -> None:
    each = [{"index": i, "message": {"content": str(i)}, "finish_reason": "stop"} for i in (1, 0)]
    with place.asked(reply_json({"choices": each})) as model:
        answer = model.generate("hi", SamplingParams(n=2, temperature=1.0))
        assert [choice.text for choice in answer.choices] == ["0", "1"]
    assert "2 answers where n=3" in str(failing(model_again(place, each), params=SamplingParams(n=3)))
    assert "choice 1 where 1 were asked for" in str(failing(model_again(place, each)))


def model_again(place: Place, each: list[dict[str, Any]]) -> RemoteModel:
    return place.asked(reply_json({"choices": each}))


@pytest.mark.parametrize(
    ("dialect", "entry", "token", "top"),
    [
        ("vllm", {"token": "token_id:12", "logprob": -0.5, "top_logprobs": [{"token": "token_id:3", "logprob": -1}]},
         12, ((3, -1.0),)),
        ("llamacpp", {"id": 12, "token": "a", "logprob": -0.5, "top_logprobs": [{"id": 3, "logprob": None}]},
         12, ((3, -math.inf),)),
        ("openai", {"token": "a", "logprob": -0.5, "top_logprobs": []}, -1, ()),
    ],
)  # fmt: skip
def test_logprobs(place: Place, dialect: str, entry: Any, token: int, top: Any) -> None:
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content": [entry]}}
    with place.asked(reply_json({"choices": [choice]}), dialect=dialect) as model:
        logprobs = model.generate("hi", SamplingParams(logprobs=True)).first.logprobs
    assert logprobs is not None
    (found,) = logprobs
    assert (found.token_id, found.logprob, found.top) == (token, -0.5, top)


# ---------------------------------------------------------------------------------------- streams


def test_a_stream(place: Place) -> None:
    with place.asked(stream_of("hello world")) as model:
        *pieces, last = model.stream("hi")
        assert place.server.body["stream"] is True
        assert place.server.body["stream_options"] == {"include_usage": True}
    assert [delta.text for delta in pieces] == ["hello", " worl", "d"]
    assert last.completion is not None and last.finish_reason == "stop"
    assert (last.completion.text, last.completion.usage) == ("hello world", Usage(7, 3))


def test_stream_and_whole_answer_are_the_same_completion(place: Place) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "zoom", "arguments": '{"x": 1}'}}
    whole = completion("see", finish="tool_calls", reasoning_content="think", tool_calls=[call])
    pieces = [
        chunk({"role": "assistant", "reasoning_content": "thi"}),
        chunk({"reasoning_content": "nk", "content": None}),
        chunk({"content": "see"}),
        chunk({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "zoom", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        chunk({}, "tool_calls"),
        event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}),
        DONE,
    ]
    with place.asked(whole, streamed(pieces)) as model:
        expected = model.generate("hi")
        deltas = list(model.stream("hi"))
    assert deltas[-1].completion == expected
    assert "".join(delta.reasoning for delta in deltas) == "think"
    assert [delta.tool_call for delta in deltas if delta.tool_call] == [ToolCall("zoom", {"x": 1}, "c1")]


def test_interleaved_choices_and_calls(place: Place) -> None:
    call = lambda i, **f: {"tool_calls": [{"index": i, "function": f}]}  # noqa: E731
    pieces = [
        chunk(call(0, name="a", arguments='{"p"'), index=1),
        chunk({"content": "x"}, index=0),
        chunk(call(1, name="b", arguments="{}"), index=1),
        chunk(call(0, arguments=": 1}"), index=1),
        chunk({"content": "y"}, "stop", index=0),
        chunk({}, "stop", index=1),
    ]
    with place.asked(streamed(pieces)) as model:  # no [DONE]: both choices have ended
        *_, last = model.stream("hi", SamplingParams(n=2, temperature=1.0))
    assert last.completion is not None
    first, second = last.completion.choices
    assert first.text == "xy" and second.tool_calls == (ToolCall("a", {"p": 1}), ToolCall("b", {}))


def test_bytes_may_be_cut_anywhere(place: Place) -> None:
    text = "é\u2028\x85字😀 done"
    body = [chunk({"content": ""})]
    raw = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    body.append(b": a comment\r\nid: 5\r\ndata:" + json.dumps(raw, ensure_ascii=False).encode() + b"\r\n\r\n")
    whole = b"".join([*body, DONE])
    with place.asked(streamed([whole[i : i + 1] for i in range(len(whole))])) as model:
        *_, last = model.stream("hi")
    assert last.completion is not None and last.completion.text == text


def test_half_characters_wait_for_their_other_half(place: Place) -> None:
    pieces = [chunk({"content": "a\ud83d"}), chunk({"content": "\ude00b"}), chunk({"content": "\ud83d"}, "stop"), DONE]
    with place.asked(streamed(pieces)) as model:
        *texts, last = model.stream("hi")
    assert [delta.text for delta in texts] == ["a", "😀b"]
    assert last.completion is not None and last.completion.text == "a😀b\ufffd"


def test_a_stream_sends_nothing_before_it_is_read(place: Place) -> None:
    with place.asked(stream_of("x")) as model:
        deltas = model.stream("hi")
        assert not place.server.requests
        next(deltas)
        assert len(place.server.requests) == 1
        with pytest.raises(InvalidMessage):
            model.stream([])
        with pytest.raises(UnsupportedOption):
            model.stream("hi", SamplingParams(top_k=3))


def test_a_cut_stream_says_so_and_keeps_its_text(place: Place, pauses: list[float]) -> None:
    started = [chunk({"content": "half an "}), chunk({"content": "answer"})]
    for ending in (streamed(started, hang_up=True), streamed(started), streamed([*started, DONE])):
        deltas, error = cut(place.asked(ending))
        assert "".join(delta.text for delta in deltas) == "half an answer" == error.partial
        assert "cut off" in str(error) or "broke off" in str(error)
        assert len(place.server.requests) == 1 and not pauses  # never retried once bytes have come


def test_errors_inside_a_stream(place: Place) -> None:
    trouble = event({"error": {"message": "out of memory", "code": 500}})
    deltas, error = cut(place.asked(streamed([chunk({"content": "a"}), trouble, DONE])))
    assert [delta.text for delta in deltas] == ["a"] and error.partial == "a"
    assert "out of memory" in str(error) and error.status == 500


@pytest.mark.parametrize(
    "nonsense",
    [b"data: {broken\n\n", b"data: [1]\n\n", b'data: {"choices": {}}\n\n', b'data: {"choices": [3]}\n\n',
     event({"choices": [{"index": 5, "delta": {}}]}), event({"choices": [{"delta": {"content": 7}}]}),
     event({"choices": [{"delta": "x"}]}), event({"choices": [{"delta": {"tool_calls": 1}}]}),
     event({"choices": [{"delta": {"tool_calls": ["x"]}}]}), event({"choices": [{"index": "a", "delta": {}}]}),
     event({"choices": [{"delta": {"tool_calls": [{"function": {"name": "a", "arguments": 3}}]}}]})],
)  # fmt: skip
def test_nonsense_inside_a_stream(place: Place, nonsense: bytes) -> None:
    _, error = cut(place.asked(streamed([chunk({"content": "a"}), nonsense, DONE])))
    assert "the server" in str(error) and error.partial == "a"


def test_a_stream_that_is_none(place: Place) -> None:
    _, error = cut(place.asked(completion("not streamed")))
    assert "asked for a stream" in str(error)
    page = Reply((b"<html><title>Sign in</title></html>",), content_type="text/html")
    assert "an HTML page titled 'Sign in'" in str(cut(place.asked(page))[1])


def test_closing_a_stream_early_frees_its_place(place: Place) -> None:
    endless = streamed([chunk({"content": "a"})] * 50, pause=0.05)
    with place.asked(endless, completion("next"), concurrency=1) as model:
        deltas = model.stream("hi")
        next(deltas)
        deltas.close()  # type: ignore[attr-defined]
        assert model.generate("hi").text == "next"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "message", "content", "tool_calls", "function", "name", "arguments", "index",
                 "finish_reason", "logprobs", "logprob", "top_logprobs", "token", "id", "usage", "prompt_tokens",
                 "prompt_tokens_details", "image_tokens", "error", "object", "reasoning", "type", "text", "stop_reason"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON | JSON.map(lambda choice: {"choices": [choice]}), max_size=3))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_an_answer_or_a_remote_error(bodies: list[Any]) -> None:
    answer = Answer(1, (), "m")
    with suppress(RemoteError):  # and nothing else
        for body in bodies:
            for delta in answer.push(body):
                assert delta.text or delta.reasoning
        *_, last = answer.finish()
        assert last.completion is not None and isinstance(last.completion.text, str)


# -------------------------------------------------------------------------- failures and retries


def test_connection_refused(pauses: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    error = failing(qwen3vl.connect(f"http://user:word@127.0.0.1:{port}", "m", dialect="openai"))
    assert f"http://127.0.0.1:{port}/v1: cannot be reached" in str(error) and error.status is None
    assert "word" not in str(error)
    assert len(pauses) == 2 and 0.3 < pauses[0] < 0.7 and 0.7 < pauses[1] < 1.3


@pytest.mark.parametrize("trouble", [failure(429, "slow down"), failure(503, "loading"), Reply(hang_up=True)])
@pytest.mark.parametrize("way", ["generate", "stream"])
def test_passing_troubles_are_tried_again(place: Place, trouble: Reply, way: str) -> None:
    good = completion("fine") if way == "generate" else stream_of("fine")
    with place.asked(trouble, trouble, good) as model:
        answer = model.generate("hi") if way == "generate" else list(model.stream("hi"))[-1].completion
    assert answer is not None and answer.text == "fine"
    assert len(place.server.requests) == 3
    bodies = [seen.body for seen in place.server.requests]
    assert bodies[0] == bodies[1] == bodies[2]


def test_a_stream_that_ends_before_its_first_byte_is_tried_again(place: Place) -> None:
    with place.asked(streamed([]), stream_of("fine")) as model:
        assert list(model.stream("hi"))[-1].completion.text == "fine"  # type: ignore[union-attr]


def test_attempts_are_bounded(place: Place) -> None:
    assert failing(place.asked(failure(500, "oh no"), max_retries=1)).status == 500
    assert len(place.server.requests) == 2
    assert failing(place.asked(failure(500, "oh no"), max_retries=0)).status == 500
    assert len(place.server.requests) == 1


def test_retry_after_is_heeded(place: Place, pauses: list[float]) -> None:
    busy = failure(429, "slow down", headers=(("Retry-After", "7"),))
    with place.asked(busy, completion("fine")) as model:
        assert model.generate("hi").text == "fine"
    assert pauses == [7.0]
    later = failure(503, "maintenance", headers=(("Retry-After", "3600"),))
    assert "asks to wait 3600 s" in str(failing(place.asked(later)))
    assert pauses == [7.0] and len(place.server.requests) == 1


def test_retry_after_as_a_date() -> None:
    assert transport._retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    assert transport._retry_after("soon") is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (failure(400, "maximum context length is 10"), "HTTP 400: maximum context length is 10"),
        (failure(401, "bad key"), "HTTP 401: bad key; check api_key"),
        (failure(404, "no model m"), "HTTP 404: no model m; check base_url and model"),
        (reply_json({"object": "error", "message": "old vLLM"}, 400), "HTTP 400: old vLLM"),
        (reply_json({"detail": "not here"}, 404), "not here"),
        (reply_json({"error": "plain text"}, 422), "HTTP 422: plain text"),
        (Reply((b"<!DOCTYPE html><title>\n 413 Too Large </title>",), 413, "text/html"), "titled '413 Too Large'"),
        (Reply((), 400), "an empty body"),
        (Reply((b"gone",), 410, "text/plain"), "'gone'"),
        (Reply((b"",), 301, headers=(("Location", "/x"),)), "points elsewhere"),
    ],
)
def test_refusals_are_told_and_not_tried_again(place: Place, reply: Reply, said: str) -> None:
    for fails in (failing, lambda model: cut(model)[1]):
        error = fails(place.asked(reply))  # type: ignore[operator]
        assert said in str(error) and error.status == reply.status
        assert len(place.server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply((b"{broken",)),
        Reply((b"<html><body>hello</body></html>",), content_type="text/html"),
        Reply((b"",)),
        Reply((b"\xff\xfe\x00",)),
        Reply((b"[" * 100_000,)),
        *map(reply_json, ([], "text", {}, {"choices": None}, {"choices": []}, {"choices": [{"message": {}}]}, None)),
        *map(reply_json, ({"error": {"message": "no"}}, {"choices": [{"message": {"content": {}}}]})),
        reply_json({"choices": [{"message": {"tool_calls": [{"function": {}}]}, "finish_reason": "stop"}]}),
    ],
)
def test_nonsense_is_a_remote_error(place: Place, reply: Reply) -> None:
    error = failing(place.asked(reply))
    assert len(str(error)) < 600


def test_the_key_is_never_told(place: Place) -> None:
    key = "sk-verysecret123"
    echo = f"Incorrect API key provided: {key}"
    for reply in (failure(401, echo), reply_json({"error": {"message": echo}}), Reply((echo.encode(),))):
        error = failing(place.asked(reply, api_key=key, max_retries=0))
        assert key not in str(error) and key not in repr(error) and "***" in str(error)
    with_key = streamed([event({"error": {"message": echo}})])
    assert key not in str(cut(place.asked(with_key, api_key=key))[1])


def test_slow_servers(place: Place) -> None:
    error = failing(place.asked(replace_delay(completion(), 1.5), timeout=0.3))
    assert "no answer within 0.3 s" in str(error)
    assert len(place.server.requests) == 1  # a second attempt would only add to the load
    dripping = streamed([chunk({"content": "a"})] * 40, pause=0.1)  # no single read takes long
    deltas, error = cut(place.asked(dripping, timeout=0.5))
    assert "within 0.5 s" in str(error) and error.partial == "a" * len(deltas) and deltas


def replace_delay(reply: Reply, delay: float) -> Reply:
    return Reply(reply.chunks, delay=delay)


def test_auto_says_when_the_server_is_not_there(place: Place) -> None:
    place.server.models = failure(401, "who are you")
    try:
        assert failing(place.asked(completion(), dialect="auto")).status == 401
        place.server.models = Reply((b"<html></html>",), content_type="text/html")
        with place.asked(completion("fine"), dialect="auto") as model:
            assert model.generate("hi").text == "fine" and model.dialect.name == "openai"
        place.server.models = models("vllm", "other")
        with place.asked(completion("fine"), dialect="auto") as model:
            assert model.dialect.name == "vllm"
    finally:
        place.server.models = None


# -------------------------------------------------------------------------------- many at a time


def echo_server(delay: float = 0.0) -> OpenAIServer:
    def answer(seen: Seen) -> Reply:
        text = seen.body["messages"][-1]["content"]
        if text == "fail":
            return failure(400, "refused")
        return replace_delay(completion(f"re: {text}"), delay)

    return OpenAIServer(answer)


def test_many_keep_their_order_and_each_its_error() -> None:
    asked = [Request(text, id=str(i)) for i, text in enumerate(["a", "fail", "b", "bad", "c"])]
    asked[3] = Request([], id="3")
    with echo_server() as server, qwen3vl.connect(server.url, "m", dialect="openai", concurrency=2) as model:
        answers = list(model.generate_many(asked))
    assert [a.id for a in answers] == ["0", "1", "2", "3", "4"]
    assert [a.text for a in answers if a.error is None] == ["re: a", "re: b", "re: c"]
    assert isinstance(answers[1].error, RemoteError) and answers[1].error.status == 400
    assert isinstance(answers[3].error, InvalidMessage)
    with pytest.raises(RemoteError, match="refused"):
        _ = answers[1].text


def test_concurrency_is_used_and_bounded() -> None:
    with echo_server(0.1) as server, qwen3vl.connect(server.url, "m", dialect="openai", concurrency=3) as model:
        answers = list(model.generate_many(Request(str(i)) for i in range(9)))
        assert [a.text for a in answers] == [f"re: {i}" for i in range(9)]
        assert server.most_at_once == 3
        threads = [threading.Thread(target=model.generate, args=(str(i),)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.most_at_once == 3 and len(server.requests) == 15


def test_many_reads_little_ahead() -> None:
    taken = 0

    def questions() -> Iterator[Request]:
        nonlocal taken
        for i in range(1000):
            taken += 1
            yield Request(str(i))

    with echo_server() as server, qwen3vl.connect(server.url, "m", dialect="openai", concurrency=2) as model:
        answers = model.generate_many(questions())
        assert next(answers).text == "re: 0"
        assert taken <= 4
        answers.close()  # type: ignore[attr-defined]
        assert len(server.requests) <= 4


def test_too_many_streams_are_told_apart_from_a_slow_server(place: Place) -> None:
    with place.asked(stream_of("hello world"), concurrency=1, timeout=0.3) as model:
        deltas = model.stream("hi")
        next(deltas)
        with pytest.raises(RemoteError, match="1 requests are under way already"):
            model.generate("again")


def test_async(place: Place) -> None:
    async def run(model: RemoteModel) -> tuple[list[Completion], list[Delta]]:
        answers = await asyncio.gather(*(model.agenerate(str(i)) for i in range(4)))
        place.script = [stream_of("hello")]
        return answers, [delta async for delta in model.astream("hi")]

    with place.asked(completion("a")) as model:
        answers, deltas = asyncio.run(run(model))
    assert [a.text for a in answers] == ["a"] * 4
    assert "".join(d.text for d in deltas) == "hello" and deltas[-1].completion is not None


def test_a_cancelled_async_stream_frees_its_place(place: Place) -> None:
    async def run(model: RemoteModel) -> str:
        stream = model.astream("hi")
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        return (await model.agenerate("hi")).text

    endless = streamed([chunk({"content": "a"})] * 50, pause=0.05)
    with place.asked(endless, completion("next"), concurrency=1) as model:
        assert asyncio.run(run(model)) == "next"


def test_close_is_final(place: Place) -> None:
    model = place.asked(completion())
    model.close()
    with pytest.raises(RemoteError, match="closed"):
        model.generate("hi")
    with pytest.raises(RemoteError, match="closed"):
        list(model.generate_many([Request("hi")]))


# ------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize("dialect", ["openai", "vllm", "dashscope"])
def test_locate_through_a_server_that_replays_the_real_model(place: Place, dialect: str, tmp_path: Any) -> None:
    """The file is stored lying on its side: boxes come out in the upright picture."""
    from PIL import Image

    record = recorded("grounding2d_ex1_dining")
    what = record["prompt"].split('"')[1]
    path, exif = tmp_path / "table.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (500, 1000), "white").save(path, exif=exif)  # shown 1000 x 500
    with place.asked(completion(record["output"]), dialect=dialect) as model:
        found = locate(model, path, what)
    (message,) = place.server.body["messages"]
    picture, question = message["content"]
    assert question == {"type": "text", "text": locate_prompt(what)} and record["prompt"] == locate_prompt(what)
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert found.size == (1000, 500)
    assert found.boxes[0].label == "plate/dish" and found.boxes[0].box == Box(74, 180.5, 324, 404)
    assert len(found.boxes) == record["output"].count("bbox_2d")


def test_events_of_random_cuts_are_the_same() -> None:
    whole = b"data: a\n\n: note\ndata: b\ndata: c\r\n\r\nevent: x\ndata:d"
    for size in range(1, len(whole) + 1):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert list(transport.events(iter(pieces))) == ["a", "b\nc", "d"]
