"""From the server's JSON to Completion and Delta. Whole and streamed answers are read by the same code.

What does not have the form of a chat completion is a RemoteError that says what was found instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from qwen3vl.errors import RemoteError
from qwen3vl.types import (
    Choice,
    Completion,
    Delta,
    FinishReason,
    MediaReceipt,
    TokenLogprob,
    ToolCall,
    Usage,
)

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "abort": "abort",
}
UNKNOWN_TOKEN = -1  # where a server names tokens by their text only


class Answer:
    """Collects one request's answer: `push` each event of a stream, or the one body of a whole answer."""

    def __init__(self, n: int, receipts: tuple[MediaReceipt, ...], model: str) -> None:
        self._n, self._receipts, self._model = n, receipts, model
        self._choices: dict[int, _Choice] = {}
        self._usage = Usage()
        self._id: str | None = None

    def push(self, event: Any) -> Iterator[Delta]:
        """The text and reasoning that `event` brings. Raises RemoteError for an error or another form."""
        if not isinstance(event, dict):
            raise RemoteError(f"the server's answer is no chat completion but {_show(event)}")
        if event.get("error") or event.get("object") == "error":
            raise RemoteError(f"the server reports: {error_message(event)}", _status_of(event))
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise RemoteError(f"the server's answer has no list of choices: {_show(event)}")
        self._id = event["id"] if isinstance(event.get("id"), str) else self._id
        self._model = event["model"] if isinstance(event.get("model"), str) and event["model"] else self._model
        if isinstance(event.get("usage"), dict):
            self._usage = _usage(event["usage"])
        for choice in choices:
            if not isinstance(choice, dict):
                raise RemoteError(f"the server's answer has a choice that is no object: {_show(choice)}")
            index = choice.get("index") or 0
            if not isinstance(index, int) or not 0 <= index < self._n:
                raise RemoteError(f"the server sent choice {_show(index)} where {self._n} were asked for")
            yield from self._choices.setdefault(index, _Choice(index)).push(choice)

    @property
    def complete(self) -> bool:
        """Every choice that was asked for has said why it ended."""
        return len(self._choices) == self._n and all(c.finish is not None for c in self._choices.values())

    @property
    def partial(self) -> str:
        """The text of the first choice so far."""
        return self._choices[0].text if 0 in self._choices else ""

    def finish(self) -> Iterator[Delta]:
        """Tool calls and reasons for the end; the last Delta carries the Completion. Needs `complete`."""
        if len(self._choices) != self._n:
            raise RemoteError(f"the server sent {len(self._choices)} answers where n={self._n} were asked for")
        done = [self._choices[index].done() for index in range(self._n)]
        completion = Completion(tuple(done), self._usage, self._receipts, model=self._model, id=self._id)
        for choice in done:
            for call in choice.tool_calls:
                yield Delta(tool_call=call, index=choice.index)
        for choice in done[:-1]:
            yield Delta(index=choice.index, finish_reason=choice.finish_reason)
        yield Delta(index=done[-1].index, finish_reason=done[-1].finish_reason, completion=completion)


class _Choice:
    def __init__(self, index: int) -> None:
        self.index = index
        self.finish: str | None = None
        self._stop_reason: str | int | None = None
        self._content, self._reasoning = _Text(), _Text()
        self._calls: list[_Call] = []
        self._logprobs: list[TokenLogprob] | None = None

    @property
    def text(self) -> str:
        return self._content.text

    def push(self, choice: dict[str, Any]) -> Iterator[Delta]:
        said = choice.get("delta") or choice.get("message") or {}
        if not isinstance(said, dict):
            raise RemoteError(f"the server's answer has a message that is no object: {_show(said)}")
        reasoning = self._reasoning.push(said.get("reasoning_content") or said.get("reasoning"))
        if reasoning:
            yield Delta(reasoning=reasoning, index=self.index)
        text = self._content.push(said.get("content"))
        if text:
            yield Delta(text, index=self.index)
        for fragment in _list(said, "tool_calls"):
            self._push_call(fragment)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and logprobs.get("content") is not None:
            self._logprobs = [*(self._logprobs or []), *map(_logprob, _list(logprobs, "content"))]
        if isinstance(choice.get("finish_reason"), str):
            self.finish = choice["finish_reason"]
            reason = choice.get("stop_reason", choice.get("matched_stop"))
            self._stop_reason = reason if isinstance(reason, (str, int)) else None

    def _push_call(self, fragment: Any) -> None:
        if not isinstance(fragment, dict) or not isinstance(fragment.get("function") or {}, dict):
            raise RemoteError(f"the server sent a tool call that is no object: {_show(fragment)}")
        index = fragment.get("index")
        call = next((c for c in self._calls if index is not None and c.index == index), None)
        begins = fragment.get("id") or (fragment.get("function") or {}).get("name")
        if call is None and index is None and self._calls and not begins:  # servers that number nothing
            call = self._calls[-1]
        if call is None:
            call = _Call(index)
            self._calls.append(call)
        call.push(fragment)

    def done(self) -> Choice:
        calls = tuple(call.done() for call in self._calls)
        word = self.finish
        if word is None:
            raise RemoteError("the server's answer does not say why it ended (finish_reason is missing)")
        finish = _FINISH.get(word, "error")
        reason = self._stop_reason if word in _FINISH else word  # such as "content_filter"
        if calls and finish == "stop":  # a forced call ends with "stop" on some servers
            finish = "tool_calls"
        text, reasoning = self._content.close(), self._reasoning.close()
        return Choice(
            text,
            finish,
            self.index,
            reasoning or None,
            calls,
            reason,
            logprobs=None if self._logprobs is None else tuple(self._logprobs),
            raw_text=text,
        )


class _Text:
    """Joins pieces; the first half of a surrogate pair ("\\ud83d") waits for the second."""

    def __init__(self) -> None:
        self.text = ""
        self._held = ""

    def push(self, piece: Any) -> str:
        if isinstance(piece, list):
            piece = "".join(p.get("text") or "" for p in piece if isinstance(p, dict) and p.get("type") == "text")
        if piece is None or piece == "":
            return ""
        if not isinstance(piece, str):
            raise RemoteError(f"the server sent text that is no string: {_show(piece)}")
        piece, self._held = self._held + piece, ""
        if "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        piece = _whole_characters(piece)
        self.text += piece
        return piece

    def close(self) -> str:
        self.text += _whole_characters(self._held)
        self._held = ""
        return self.text


def _whole_characters(text: str) -> str:
    """Surrogate pairs joined; what stays half a character becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class _Call:
    def __init__(self, index: Any) -> None:
        self.index = index
        self._id: str | None = None
        self._name = ""
        self._pieces: list[str] = []
        self._object: dict[str, Any] | None = None

    def push(self, fragment: dict[str, Any]) -> None:
        function = fragment.get("function") or {}
        if isinstance(fragment.get("id"), str) and self._id is None:
            self._id = fragment["id"]
        if isinstance(function.get("name"), str) and not self._name:
            self._name = function["name"]
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            self._object = arguments
        elif isinstance(arguments, str):
            self._pieces.append(arguments)
        elif arguments is not None:
            raise RemoteError(f"the server sent tool call arguments that are no text: {_show(arguments)}")

    def done(self) -> ToolCall:
        text = "".join(self._pieces)
        if not self._name:
            raise RemoteError(f"the server sent a tool call without a name: {_show(text)}")
        if self._object is not None:
            return ToolCall(self._name, self._object, self._id)
        try:
            value = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            value = None
        return ToolCall(self._name, value if isinstance(value, dict) else text, self._id)


def _usage(values: dict[str, Any]) -> Usage:
    prompt, answer = (values.get(f"{part}_tokens_details") or {} for part in ("prompt", "completion"))

    def number(where: Any, key: str) -> int:
        value = where.get(key) if isinstance(where, dict) else None
        return value if isinstance(value, int) and value >= 0 else 0

    return Usage(
        prompt_tokens=number(values, "prompt_tokens"),
        completion_tokens=number(values, "completion_tokens"),
        image_tokens=number(prompt, "image_tokens"),
        video_tokens=number(prompt, "video_tokens"),
        cached_tokens=number(prompt, "cached_tokens"),
        reasoning_tokens=number(answer, "reasoning_tokens") or number(values, "reasoning_tokens"),
    )


def _logprob(entry: Any) -> TokenLogprob:
    if not isinstance(entry, dict):
        raise RemoteError(f"the server sent a log-probability that is no object: {_show(entry)}")
    top = tuple((_token_id(other), _number(other)) for other in _list(entry, "top_logprobs"))
    return TokenLogprob(_token_id(entry), _number(entry), top)


def _token_id(entry: Any) -> int:
    """vLLM: "token": "token_id:123"; llama.cpp: "id": 123; others: unknown."""
    if isinstance(entry, dict):
        name = entry.get("token")
        if isinstance(name, str) and name.startswith("token_id:") and name[9:].isdigit():
            return int(name[9:])
        if isinstance(entry.get("id"), int):
            return int(entry["id"])
    return UNKNOWN_TOKEN


def _number(entry: Any) -> float:
    value = entry.get("logprob") if isinstance(entry, dict) else None
    if value is None:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e30 < value <= 1e30:
        raise RemoteError(f"the server sent a log-probability that is no number: {_show(entry)}")
    return float(value)


def _list(values: dict[str, Any], key: str) -> list[Any]:
    value = values.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RemoteError(f"the server's {key} is no list: {_show(value)}")
    return value


def error_message(body: Any) -> str:
    """What an error body says: {"error": {"message"}}, {"error": text}, {"message"} or {"detail"}."""
    found: Any = body
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return found[:2000] if isinstance(found, str) else _show(found)


def _status_of(event: dict[str, Any]) -> int | None:
    error = event.get("error")
    code = error.get("code") if isinstance(error, dict) else event.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."
