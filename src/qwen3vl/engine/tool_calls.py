"""One `<tool_call>` block of the model's answer, read into a ToolCall.

The form is the chat template's: {"name": NAME, "arguments": ARGS}. What the model really writes is
sometimes not quite JSON; then the name is still worth having, and the arguments are kept as text.
"""

from __future__ import annotations

import json
import re
from typing import Any

from qwen3vl.types import ToolCall

_NAME = re.compile(r'"name"\s*:\s*("(?:[^"\\\n]|\\.)+")')
_ARGUMENTS = re.compile(r'"arguments"\s*:\s*')


def parse_tool_call(body: str) -> ToolCall | None:
    """The call in the text between `<tool_call>` and `</tool_call>`; None where not even a name can be read.

    `arguments` is the object where it is one (also as a JSON string that holds one), {} where there are
    none, and else the text as the model wrote it.
    """
    call = _loads(body)
    if isinstance(call, dict):
        name = call.get("name")
        return ToolCall(name, _arguments(call.get("arguments"))) if isinstance(name, str) and name else None
    return _parse_broken(body)


def is_json(body: str) -> bool:
    return _loads(body) is not None


def _arguments(value: Any) -> dict[str, Any] | str:
    if value is None:
        return {}
    if isinstance(value, str):
        inner = _loads(value)
        return inner if isinstance(inner, dict) else value
    return value if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


def _parse_broken(body: str) -> ToolCall | None:
    """Not JSON as a whole. Arguments that are an object of their own count, with too few or many braces after it."""
    name_match, arguments_match = _NAME.search(body), _ARGUMENTS.search(body)
    starts_like_a_call = body.lstrip().startswith("{")
    name = _loads(name_match[1]) if name_match and starts_like_a_call else None
    if name_match is None or not isinstance(name, str):
        return None
    if arguments_match is None:
        return ToolCall(name, body[name_match.end() :].strip())
    text = body[arguments_match.end() :].strip()
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return ToolCall(name, text.removesuffix("}").rstrip())
    only_braces = not text[end:].replace("}", "").strip()
    return ToolCall(name, value if only_braces and isinstance(value, dict) else text)


def _loads(text: str) -> Any:
    """The JSON value, or None where it is not JSON (or nested or numbered beyond what Python reads)."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
