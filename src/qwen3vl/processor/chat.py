"""The checkpoint's own chat template: messages to prompt text.

The template is the Jinja file that comes with the checkpoint, run in Jinja's sandbox with the settings
that transformers gives it. This module knows nothing of the chat format itself, and so checks from outside
that the template showed everything that it was given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen3vl.errors import CheckpointNotFound, ConfigError, InvalidMessage
from qwen3vl.processor.control_tokens import ControlTokens, Marks
from qwen3vl.processor.messages import as_tools, to_template_dict
from qwen3vl.processor.tokenizer import IMAGE_PAD, THINK_END, VIDEO_PAD, Tokenizer
from qwen3vl.types import Message, Tool

_PADS = {"image": IMAGE_PAD, "video": VIDEO_PAD}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation. `marks` surround control tokens that are text; None: all are tokens."""

    text: str
    marks: Marks | None

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        if self.marks is None:
            return tokenizer.encode(self.text, allow_special=True)
        return tokenizer.encode_segments(self.marks.split(self.text, tokenizer.added_tokens))


class ChatTemplate:
    """A Jinja chat template.

    Args:
        source: its text.
        variables: `eos_token` and the like, which templates may mention.
    """

    def __init__(self, source: str, variables: Mapping[str, str] | None = None) -> None:
        self.source = source
        self._variables = dict(variables or {})
        try:
            environment = _environment()
            self._template = environment.from_string(source)
            self.literal_text = _literal_text(environment.parse(source))
        except jinja2.TemplateError as error:
            raise ConfigError(f"the chat template is not valid Jinja: {error}") from error

    @classmethod
    def from_folder(cls, folder: str | Path, variables: Mapping[str, str] | None = None) -> ChatTemplate:
        """From chat_template.jinja, chat_template.json or tokenizer_config.json, whichever is there first.

        Raises CheckpointNotFound if none has one, ConfigError if it cannot be read.
        """
        return cls(_read_source(Path(folder)), variables)

    def control_tokens(self, tokenizer: Tokenizer) -> ControlTokens:
        """What must not be mistaken for a control token in a caller's text: the special tokens, and the
        other added tokens that this template uses (as transformers has it)."""
        return ControlTokens(
            token
            for token, token_id in tokenizer.added_tokens.items()
            if token_id in tokenizer.special_ids or (token in self.literal_text and not token.isspace())
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        add_vision_id: bool = False,
        control_tokens: ControlTokens | None = None,
    ) -> Prompt:
        """The prompt, with one placeholder for each picture and video.

        Args:
            add_vision_id: number the media: "Picture 1: ", "Video 1: ".
            control_tokens: these are text where messages or tools hold them; None: they act.

        Raises:
            InvalidMessage: the template refuses the messages, or would leave a text, picture, video,
                tool call or tool out of the prompt. Reasoning of earlier turns may be left out, as the
                Thinking editions do and as the Instruct editions do with all reasoning.
        """
        dicts, schemas = [to_template_dict(message) for message in messages], as_tools(tools)
        marks = Marks.absent_from(dicts, schemas)
        if control_tokens is not None:
            dicts = [control_tokens.mark_message(values, marks) for values in dicts]
            schemas = control_tokens.mark(schemas, marks)
        flags = {"add_generation_prompt": add_generation_prompt, "add_vision_id": add_vision_id}
        self._check_nothing_lost(dicts, schemas, marks, flags)
        return Prompt(self._run(dicts, schemas, flags), None if control_tokens is None else marks)

    def _run(self, dicts: list[dict[str, Any]], tools: list[Any], flags: Mapping[str, Any]) -> str:
        try:
            return self._template.render(
                messages=dicts, tools=tools or None, documents=None, **self._variables, **flags
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InvalidMessage(f"the checkpoint's chat template refuses these messages: {error}") from error

    def _check_nothing_lost(
        self, dicts: list[dict[str, Any]], tools: list[Any], marks: Marks, flags: Mapping[str, Any]
    ) -> None:
        """Render once more with a numbered probe behind everything that must show, and look for all of them."""
        probes = _Probes(marks.probe)
        probed = [probes.in_message(values, f"message {i} ({values['role']})") for i, values in enumerate(dicts)]
        probed_tools = [probes.in_tool(tool, f"tool {i}") for i, tool in enumerate(tools)]
        text = self._run(probed, probed_tools, flags)
        for where in probes.missing_from(text):
            hint = "; put it into the first message" if where.endswith("(system): text") else ""
            raise InvalidMessage(f"{where} would be lost: the checkpoint's chat template leaves it out{hint}")


class _Probes:
    """Numbered probes set into template values: `P0P`, `P1P` ... where P is a character of its own."""

    def __init__(self, char: str) -> None:
        self._char = char
        self._places: list[tuple[str, str]] = []  # per probe: where it stands, what must follow it

    def _new(self, where: str, followed_by: str = "") -> str:
        self._places.append((where, followed_by))
        return f"{self._char}{len(self._places) - 1}{self._char}"

    def in_message(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        probed = dict(values)
        if values["content"]:
            probed["content"] = list(self._in_content(values["content"], values["role"], where))
        if "tool_calls" in values:
            probed["tool_calls"] = [
                self.in_tool(call, f"{where}: tool call {i}") for i, call in enumerate(values["tool_calls"])
            ]
        return probed

    def in_tool(self, tool: dict[str, Any], where: str) -> dict[str, Any]:
        """Into the name of a function or of a call of one, in either form."""
        if "function" in tool:
            return {**tool, "function": self.in_tool(tool["function"], where)}
        return {**tool, "name": tool["name"] + self._new(where)}

    def _in_content(self, content: Sequence[dict[str, Any]], role: str, where: str) -> Iterator[dict[str, Any]]:
        """A probe behind each text, one before and one behind each picture and video.

        An assistant's text up to `</think>` is reasoning, which may be left out.
        """
        thoughts = [i for i, part in enumerate(content) if role == "assistant" and THINK_END in part.get("text", "")]
        for i, part in enumerate(content):
            if part["type"] != "text":
                yield {"type": "text", "text": self._new(f"{where}: {part['type']}", _PADS[part["type"]])}
                yield part
                yield {"type": "text", "text": self._new(f"{where}: {part['type']}")}
            elif not part["text"] or (thoughts and i < thoughts[-1]):
                yield part
            else:
                yield {"type": "text", "text": part["text"] + self._new(f"{where}: text")}

    def missing_from(self, text: str) -> Iterator[str]:
        """Where the probes stand that are not in `text`, or not followed by what must follow them."""
        pieces = text.split(self._char)  # [text, number, text, number, ..., text]
        following: dict[str, str] = dict(zip(pieces[1::2], pieces[2::2], strict=False))
        for i, (where, followed_by) in enumerate(self._places):
            if str(i) not in following or followed_by not in following[str(i)]:
                yield where


# ------------------------------------------------------------------------------------------- the sandbox


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates (its chat_template_utils.py)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own, without HTML escapes and with the keys in their order."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _literal_text(tree: nodes.Template) -> str:
    """All that the template itself may write; NUL keeps its pieces from joining into a token."""
    raw = [node.data for node in tree.find_all(nodes.TemplateData)]
    constants = [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return "\0".join([*raw, *constants])


def _read_source(folder: Path) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        path = folder / name
        try:
            source = json.loads(path.read_text(encoding="utf-8")).get("chat_template") if path.is_file() else None
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
        if isinstance(source, str):
            return source
        if source is not None:
            raise ConfigError(f"{path}: chat_template must be a string, not {type(source).__name__}")
    raise CheckpointNotFound(
        f"{folder}: no chat template (chat_template.jinja, chat_template.json, or in tokenizer_config.json)"
    )
