"""SamplingParams, tools and tool_choice as fields of a request; what the dialect cannot say is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from qwen3vl.errors import InvalidParams, UnsupportedOption
from qwen3vl.processor.messages import as_tools, plain_json
from qwen3vl.remote.dialects import Dialect
from qwen3vl.settings import SamplingParams
from qwen3vl.types import Tool, ToolChoice

# Stated even where they are at their default: servers take their own defaults from the checkpoint's
# generation_config.json or the command line (vLLM: top_k 20 and top_p 0.8 for Qwen3-VL).
_ALWAYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


def sampling_fields(params: SamplingParams | None, dialect: Dialect) -> dict[str, Any]:
    """The fields of a request for `params`; none for None: the server then uses its own defaults.

    SamplingParams(temperature=0.7, top_p=0.8) for "openai": {"temperature": 0.7, "top_p": 0.8,
    "presence_penalty": 0.0, "frequency_penalty": 0.0}.

    Raises:
        UnsupportedOption: naming every field that this dialect has no word for.
    """
    if params is None:
        return {}
    given = {f.name: getattr(params, f.name) for f in fields(params)}
    changed = {name for name, value in given.items() if value != getattr(_DEFAULTS, name)}
    refused = sorted(changed - set(dialect.fields))
    if refused:
        raise UnsupportedOption(_refusal(refused, dialect))
    body: dict[str, Any] = {}
    for name, key in dialect.fields.items():
        if name in changed or name in _ALWAYS:
            value = given[name] if given[name] is not None else dialect.off[name]
            _put(body, key, _json_value(name, value))
            body.update(dialect.fixed.get(name, {}))
    return body


def tool_fields(tools: Sequence[Tool] | None, tool_choice: ToolChoice | None, dialect: Dialect) -> dict[str, Any]:
    """`tools` in OpenAI's form and `tool_choice`. Raises InvalidMessage, InvalidParams, UnsupportedOption."""
    functions = [tool if "function" in tool else {"type": "function", "function": tool} for tool in as_tools(tools)]
    body: dict[str, Any] = {"tools": functions} if functions else {}
    if tool_choice is None:
        return body
    if isinstance(tool_choice, Mapping):
        if not dialect.named_tool_choice:
            raise UnsupportedOption(
                f"tool_choice={dict(tool_choice)!r}: {dialect.name} servers cannot force a function"
            )
        tool_choice = plain_json(tool_choice, "tool_choice")
    elif tool_choice not in ("auto", "none", "required"):
        raise InvalidParams(f"tool_choice={tool_choice!r} is not one of auto, none, required, or a function by name")
    if not functions:
        if tool_choice in ("auto", "none"):
            return body
        raise InvalidParams(f"tool_choice={tool_choice!r} needs tools")
    return {**body, "tool_choice": tool_choice}


_DEFAULTS = SamplingParams()


def _refusal(names: list[str], dialect: Dialect) -> str:
    hint = ""
    if names == ["top_logprobs"]:
        hint = " (its log-probabilities name tokens by text only, not by id)"
    return (
        f"{', '.join(names)}: cannot be asked of a {dialect.name} server{hint}; connect(extra_body=...) adds raw fields"
    )


def _put(body: dict[str, Any], key: str, value: Any) -> None:
    outer, _, inner = key.partition(".")
    if inner:
        body.setdefault(outer, {})[inner] = value
    else:
        body[key] = value


def _json_value(name: str, value: Any) -> Any:
    if name == "json_schema":
        schema = plain_json(value, "json_schema")
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    if name == "logit_bias":
        return {str(token): bias for token, bias in value.items()}
    return list(value) if isinstance(value, tuple) else value
