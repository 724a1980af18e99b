"""The checkpoint's own chat template: messages to prompt text.

The template is the Jinja file that comes with the checkpoint, run in Jinja's sandbox with the settings
that transformers gives it. This module knows nothing of the chat format itself, and so checks from outside
that the template showed everything that it was given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
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
_TURN_START, _TURN_END = "qwen3vl_turn_start", "qwen3vl_turn_end"  # variables of the marked template


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation. `marks` surround control tokens that are text; None: all are tokens."""

    text: str
    marks: Marks | None

    def encode(self, tokenizer: Tokenizer) -> list[int]:
        if self.marks is None:
            return tokenizer.encode(self.text, allow_special=True)
        return tokenizer.encode_segments(self.marks.split(self.text, tokenizer.added_tokens))


@dataclass(frozen=True, slots=True)
class Turns:
    """A rendered conversation, and the characters (start, end) of `prompt.text` that each message produced.

    A system message that the template writes ahead of the turns produces nothing here.
    """

    prompt: Prompt
    spans: tuple[tuple[int, int], ...]


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

    def render_turns(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        control_tokens: ControlTokens,
        answer_tokens: ControlTokens,
        check: bool = True,
    ) -> Turns:
        """A finished conversation, and what of it each message produced. For training.

        The template's loop over the messages is made to write a mark at the beginning and the end of each round;
        the marks are characters that stand nowhere else, and are taken out again.

        Args:
            control_tokens: these are text where users, tools and the system write them ...
            answer_tokens: ... and these where the assistant does.
            check: look whether the template leaves something out; False where conversations of this form have
                been checked.

        Raises:
            InvalidMessage: as `render` does.
            ConfigError: the template has no loop over the messages that writes each of them once.
        """
        dicts, schemas = [to_template_dict(message) for message in messages], as_tools(tools)
        marks = Marks.absent_from(dicts, schemas)
        turn = Marks.absent_from(dicts, schemas, [marks.start, marks.end, marks.probe])
        dicts = [
            (answer_tokens if values["role"] == "assistant" else control_tokens).mark_message(values, marks)
            for values in dicts
        ]
        schemas = control_tokens.mark(schemas, marks)
        flags = {"add_generation_prompt": False, "add_vision_id": False}
        if check:
            self._check_nothing_lost(dicts, schemas, marks, flags)
        marked = {**flags, _TURN_START: turn.start, _TURN_END: turn.end}
        text, spans = _take_out(self._run(dicts, schemas, marked, self._marked_template), turn)
        if len(spans) != len(messages):
            raise ConfigError(f"the chat template shows {len(messages)} messages as {len(spans)} turns: cannot be used")
        return Turns(Prompt(text, marks), spans)

    @cached_property
    def generation_prompt(self) -> str:
        """What the template writes last when an answer is to come: the beginning of each answer's turn."""
        dicts = [{"role": "user", "content": "a"}]
        without = self._run(dicts, [], {"add_generation_prompt": False, "add_vision_id": False})
        whole = self._run(dicts, [], {"add_generation_prompt": True, "add_vision_id": False})
        if not whole.startswith(without) or whole == without:
            raise ConfigError("the chat template has no generation prompt")
        return whole[len(without) :]

    @cached_property
    def _marked_template(self) -> jinja2.Template:
        environment = _environment()
        tree = environment.parse(self.source)
        for loop in tree.find_all(nodes.For):
            if isinstance(loop.iter, nodes.Name) and loop.iter.name == "messages":
                loop.body.insert(0, nodes.Output([nodes.Name(_TURN_START, "load")]))
                loop.body.append(nodes.Output([nodes.Name(_TURN_END, "load")]))
        return environment.from_string(tree)

    def _run(
        self,
        dicts: list[dict[str, Any]],
        tools: list[Any],
        flags: Mapping[str, Any],
        template: jinja2.Template | None = None,
    ) -> str:
        try:
            return (template or self._template).render(
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


def _take_out(text: str, turn: Marks) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text without the marks, and what stood between each pair: "a[bc]d[e]" -> "abcde", ((1, 3), (4, 5))."""
    kept, spans, length = [], [], 0
    for i, piece in enumerate(re.split(f"[{turn.start}{turn.end}]", text)):
        if i % 2:
            spans.append((length, length + len(piece)))
        kept.append(piece)
        length += len(piece)
    return "".join(kept), tuple(spans)


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
