"""What each kind of server understands beyond OpenAI's own chat requests, in one table.

Sources: the request classes of vLLM 0.11 and later and of SGLang (their openai/protocol.py), llama.cpp's
tools/server/README.md, Alibaba Cloud Model Studio's "OpenAI Chat" reference and the model's notebooks (DashScope).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen3vl.errors import InvalidParams

DialectName = Literal["auto", "vllm", "sglang", "llamacpp", "openai", "dashscope"]

_WEB_FORMATS = ("JPEG", "PNG", "WEBP")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of server.

    Attributes:
        name: as in `connect(dialect=...)`.
        formats: encoded pictures that are passed on as they are; others are sent as PNG.
        pixel_bounds: how min_pixels and max_pixels of pictures are told: as mm_processor_kwargs of the
            whole request, beside the picture, or not at all (the picture is then resized here).
        videos: a whole file as video_url, a list of frames with their rate, or pictures behind their times.
        video_options: fields of MediaOptions that a whole file can be sent with.
        fields: field of SamplingParams -> field of the request. What is missing is refused.
        off: what stands for a None of SamplingParams, because the server's own default is not "off".
        token_ids: log-probabilities come with token ids.
        named_tool_choice: a certain function can be forced.
        fixed: fields of the request that go with a field of SamplingParams.
    """

    name: str
    fields: Mapping[str, str]
    formats: tuple[str, ...] = _WEB_FORMATS
    pixel_bounds: Literal["processor", "part", "resize"] = "resize"
    videos: Literal["url", "frame_list", "pictures"] = "pictures"
    video_options: tuple[str, ...] = ()
    off: Mapping[str, float] = field(default_factory=dict)
    token_ids: bool = False
    named_tool_choice: bool = True
    fixed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_OPENAI = _same(
    *("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "max_tokens", "stop", "n"),
    *("logprobs", "logit_bias"),
) | {"json_schema": "response_format"}
_SAMPLERS = _same("top_k", "min_p", "repetition_penalty")
_TOKENS = _same("min_tokens", "stop_token_ids", "ignore_eos")

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("openai", _OPENAI),
        Dialect(
            "vllm",
            {
                **_OPENAI,
                **_SAMPLERS,
                **_TOKENS,
                "top_logprobs": "top_logprobs",
                "thinking_budget": "thinking_token_budget",
                "regex": "structured_outputs.regex",
                "grammar": "structured_outputs.grammar",
            },
            pixel_bounds="processor",
            videos="url",
            video_options=("fps", "timestamps"),
            off={"top_k": -1, "min_p": 0.0},
            token_ids=True,
            fixed={"logprobs": {"return_tokens_as_token_ids": True}},
        ),
        Dialect(
            "sglang",
            {**_OPENAI, **_SAMPLERS, **_TOKENS, "regex": "regex", "grammar": "ebnf"},
            videos="url",
            off={"top_k": -1, "min_p": 0.0},
        ),
        Dialect(
            "llamacpp",
            {
                **{key: value for key, value in _OPENAI.items() if key != "n"},
                **_same("top_k", "min_p", "ignore_eos", "top_logprobs", "grammar"),
                "repetition_penalty": "repeat_penalty",
            },
            formats=("JPEG", "PNG"),  # its decoder, stb_image, reads no WebP
            off={"top_k": 0, "min_p": 0.0},
            token_ids=True,
            named_tool_choice=False,  # taken for "auto" there
        ),
        Dialect(
            "dashscope",
            _same("temperature", "top_p", "top_k", "presence_penalty", "seed", "max_tokens", "stop", "n", "logprobs")
            | _same("thinking_budget"),
            pixel_bounds="part",
            videos="frame_list",
            off={"top_k": 101},  # "greater than 100" turns it off
        ),
    )
}
NAMES = ("auto", *DIALECTS)

_OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp"}  # owned_by in /v1/models -> dialect
_HOSTS = {"aliyuncs.com": "dashscope"}


def dialect_of_host(host: str) -> Dialect | None:
    """The dialect of services that are known by their address."""
    return next((DIALECTS[name] for end, name in _HOSTS.items() if host == end or host.endswith(f".{end}")), None)


def dialect_of_models(answer: Any, model: str) -> Dialect:
    """By who owns `model` in the server's list of models; OpenAI's own where that tells nothing."""
    listed = answer.get("data") if isinstance(answer, dict) else None
    cards = [card for card in listed if isinstance(card, dict)] if isinstance(listed, list) else []
    cards.sort(key=lambda card: card.get("id") != model)
    owner = cards[0].get("owned_by") if cards else None
    return DIALECTS[_OWNERS.get(owner, "openai") if isinstance(owner, str) else "openai"]


def dialect_named(name: str) -> Dialect | None:
    """None for "auto". Raises InvalidParams."""
    if name not in NAMES:
        raise InvalidParams(f"dialect={name!r} is not one of {', '.join(NAMES)}")
    return DIALECTS.get(name)
