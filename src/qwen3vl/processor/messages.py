"""From what callers write to `Message`s: strict about every key, so that nothing is silently ignored.

Accepted are this package's own types, OpenAI's chat form and Qwen's (as in the model card and
qwen-vl-utils). Everything else is an InvalidMessage that says where it stands and what is allowed:
`message 1, part 0: unknown key 'foo' (allowed here: ...)`. part_forms.py reads the parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from qwen3vl.errors import InvalidMessage
from qwen3vl.processor.part_forms import check_keys, check_part, check_text, part_from_dict
from qwen3vl.types import Message, Messages, Part, Role, TextPart, Tool, ToolCall

ROLES: tuple[str, ...] = get_args(Role)

_KEYS_OF_ROLE = {
    "system": ("role", "content"),
    "user": ("role", "content"),
    "assistant": ("role", "content", "reasoning_content", "reasoning", "tool_calls"),
    "tool": ("role", "content", "tool_call_id", "name"),
}
_MOST_NESTING = 100  # levels of JSON; real schemas have about ten
# Fields of an OpenAI answer that clients send back in the history; accepted only while they say nothing.
_EMPTY_ANSWER_FIELDS = ("refusal", "audio", "function_call", "annotations")


def as_messages(messages: Messages) -> tuple[Message, ...]:
    """The conversation as `Message`s, in order.

    A bare string is one user message; so is a string in the list. Texts are kept to the letter, and
    so are tool-call arguments given as a string.

    Raises:
        InvalidMessage: naming message index, part index and key.
    """
    if isinstance(messages, (str, Message)):
        messages = [messages]
    if not isinstance(messages, Sequence) or isinstance(messages, (bytes, bytearray)):
        raise InvalidMessage(f"messages must be a string, a Message or a list of messages, not {_name(messages)}")
    if not messages:
        raise InvalidMessage("messages is empty: give at least one message")
    return tuple(_as_message(message, f"message {i}") for i, message in enumerate(messages))


def as_tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]]:
    """Function schemas as plain JSON objects, in OpenAI's form or flat ({"name", "parameters", ...}).

    Raises:
        InvalidMessage: a tool is not a JSON object, or has no name.
    """
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidMessage(f"tools must be a list of function schemas, not {_name(tools)}")
    return [_as_tool(tool, f"tool {i}") for i, tool in enumerate(tools)]


def to_template_dict(message: Message) -> dict[str, Any]:
    """The message as chat templates read it: plain JSON types only, media as bare markers of their kind.

    No content at all is the empty string, which templates treat as "says nothing".
    """
    values: dict[str, Any] = {"role": message.role, "content": [_template_part(part) for part in message.content] or ""}
    if message.reasoning is not None:
        values["reasoning_content"] = message.reasoning
    if message.tool_calls:
        values["tool_calls"] = [_template_call(call) for call in message.tool_calls]
    return values


def _template_part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    kind = "image" if hasattr(part, "image") else "video"
    return {"type": kind, kind: ""}


def _template_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else plain_json(call.arguments, "tool call")
    return {"type": "function", "function": {"name": call.name, "arguments": arguments}}


# ------------------------------------------------------------------------------------------ messages


def _as_message(message: Any, where: str) -> Message:
    if isinstance(message, str):
        message = Message("user", (TextPart(message),) if message else ())
    elif isinstance(message, Mapping):
        message = _message_from_dict(message, where)
    elif not isinstance(message, Message):
        raise InvalidMessage(f"{where}: must be a Message, a dict or a string, not {_name(message)}")
    _check_message(message, where)
    return message


def _message_from_dict(values: Mapping[str, Any], where: str) -> Message:
    role = values.get("role")
    if role not in ROLES:
        raise InvalidMessage(f"{where}: unknown role {role!r} (allowed: {', '.join(ROLES)})")
    values = {k: v for k, v in values.items() if not (k in _EMPTY_ANSWER_FIELDS and role == "assistant" and not v)}
    check_keys(values, _KEYS_OF_ROLE[role], f"{where} ({role})")
    if values.get("reasoning_content") is not None and values.get("reasoning") is not None:
        raise InvalidMessage(f"{where}: reasoning_content and reasoning exclude each other: give one of them")
    if values.get("name") is not None:
        check_text(values["name"], f"{where}: name")
    reasoning = values.get("reasoning_content")
    calls = values.get("tool_calls")
    if calls is not None and (isinstance(calls, (str, Mapping)) or not isinstance(calls, Sequence)):
        raise InvalidMessage(f"{where}: tool_calls must be a list, not {_name(calls)}")
    return Message(
        role,
        content=_content(values, where),
        reasoning=values.get("reasoning") if reasoning is None else reasoning,
        tool_calls=tuple(_call_from_dict(call, f"{where}, tool call {i}") for i, call in enumerate(calls or ())),
        tool_call_id=values.get("tool_call_id"),
    )


def _content(values: Mapping[str, Any], where: str) -> tuple[Part, ...]:
    content = values.get("content")
    if content is None:
        if values.get("role") == "assistant" and values.get("tool_calls"):
            return ()
        raise InvalidMessage(f"{where}: content is missing (only an assistant message with tool_calls may lack it)")
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if isinstance(content, (bytes, Mapping)) or not isinstance(content, Sequence):
        raise InvalidMessage(f"{where}: content must be a string or a list of parts, not {_name(content)}")
    return tuple(part_from_dict(part, f"{where}, part {i}") for i, part in enumerate(content))


def _call_from_dict(values: Any, where: str) -> ToolCall:
    if isinstance(values, ToolCall):
        return values
    if not isinstance(values, Mapping):
        raise InvalidMessage(f"{where}: must be an object, not {_name(values)}")
    call_id = values.get("id")
    if "function" in values:
        check_keys(values, ("id", "type", "function", "index"), where)
        values, where = values["function"], f"{where}, function"
        if not isinstance(values, Mapping):
            raise InvalidMessage(f"{where}: must be an object with name and arguments, not {_name(values)}")
        check_keys(values, ("name", "arguments"), where)
    check_keys(values, ("id", "type", "name", "arguments"), where)
    for key in ("name", "arguments"):
        if key not in values:
            raise InvalidMessage(f"{where}: {key} is missing")
    return ToolCall(values["name"], values["arguments"], call_id)


# -------------------------------------------------------------------------------------------- checks


def _check_message(message: Message, where: str) -> None:
    if message.role not in ROLES:
        raise InvalidMessage(f"{where}: unknown role {message.role!r} (allowed: {', '.join(ROLES)})")
    if not isinstance(message.content, tuple):
        raise InvalidMessage(f"{where}: content must be a tuple of parts, not {_name(message.content)}")
    for i, part in enumerate(message.content):
        check_part(part, f"{where}, part {i}")
    for key, role in (("reasoning", "assistant"), ("tool_calls", "assistant"), ("tool_call_id", "tool")):
        if getattr(message, key) and message.role != role:
            raise InvalidMessage(f"{where}: {key} belongs to {role} messages, not to {message.role} messages")
    for key in ("reasoning", "tool_call_id"):
        if getattr(message, key) is not None:
            check_text(getattr(message, key), f"{where}: {key}")
    for i, call in enumerate(message.tool_calls):
        _check_call(call, f"{where}, tool call {i}")


def _check_call(call: ToolCall, where: str) -> None:
    if not isinstance(call, ToolCall):
        raise InvalidMessage(f"{where}: must be a ToolCall, not {_name(call)}")
    check_text(call.name, f"{where}: name")
    if not call.name:
        raise InvalidMessage(f"{where}: name is empty")
    if isinstance(call.arguments, str):
        check_text(call.arguments, f"{where}: arguments")
    elif isinstance(call.arguments, Mapping):
        plain_json(call.arguments, f"{where}: arguments")
    else:
        raise InvalidMessage(f"{where}: arguments must be an object or a JSON string, not {_name(call.arguments)}")


def _as_tool(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, Mapping):
        raise InvalidMessage(f"{where}: must be a function schema (a dict), not {_name(tool)}")
    function = tool.get("function", tool)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidMessage(f'{where}: needs a name: {{"type": "function", "function": {{"name": ...}}}}')
    return plain_json(tool, where)


def plain_json(value: Any, where: str) -> Any:
    """`value` rebuilt from dict, list, str, int, float, bool and None, its keys in order."""
    _check_depth(value, where)
    try:
        text = json.dumps(value, ensure_ascii=False, default=_mapping_as_dict)
        text.encode()  # a lone surrogate has no UTF-8 form and no token
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"{where}: cannot be written as JSON ({error})") from error


def _check_depth(value: Any, where: str, left: int = _MOST_NESTING) -> None:
    """Before anything walks it recursively; catches objects that contain themselves, too."""
    if not isinstance(value, (Mapping, list, tuple)):
        return
    if left == 0:
        raise InvalidMessage(f"{where}: cannot be written as JSON (nested more than {_MOST_NESTING} levels deep)")
    for item in value.values() if isinstance(value, Mapping) else value:
        _check_depth(item, where, left - 1)


def _mapping_as_dict(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{_name(value)} is not a JSON type")


def _name(value: Any) -> str:
    return type(value).__name__
