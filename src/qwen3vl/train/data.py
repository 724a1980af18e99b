"""Training data from files: one conversation a line, in the official fine-tuning format or as chat messages.

    {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>What is this?"},
                                         {"from": "gpt", "value": "A receipt."}]}
    {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, ...]},
                  {"role": "assistant", "content": "A receipt."}], "tools": [...]}

A line may also be a list of such items: a pack made by the official pack_data.py. Here it is a list of
conversations like any other, since packing.py packs anew. `image` and `video` are a name or a list of names,
one for each `<image>` and `<video>` in what people say; names are relative to the file's folder or `root`.
Beside these, an item may carry an `id` and the fields of MediaOptions (`max_pixels`, `fps`, ...), which hold for
all its pictures and videos. Other keys are errors, unless they are named in `ignored_keys`.
Sources: qwen-vl-finetune of the Qwen3-VL repository (README.md, qwenvl/data/data_processor.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from qwen3vl.errors import DataError, InvalidMessage, InvalidParams
from qwen3vl.processor.messages import as_messages, as_tools
from qwen3vl.settings import MediaOptions
from qwen3vl.types import ImagePart, Message, Part, TextPart, Tool, VideoPart

_TAGS = re.compile(r"(<image>|<video>)")
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_OPTIONS = tuple(f.name for f in fields(MediaOptions))
_KEYS = {
    "conversations": ("conversations", "image", "video", "id", *_OPTIONS),
    "messages": ("messages", "tools", "id", *_OPTIONS),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation to learn from; every assistant turn in it is learnt.

    Attributes:
        media: for all its pictures and videos; a part's own settings come before these.
        where: a name for people: "data.jsonl:12", "train/count/0/7".
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    media: MediaOptions | None = None
    where: str = ""


def read_line(text: str | bytes, where: str, root: Path, ignored_keys: Sequence[str] = ()) -> tuple[Example, ...]:
    """The conversations of one line. Raises DataError, beginning with `where`. No media file is opened."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not valid JSON ({error})") from error
    return read_value(value, where, root, ignored_keys)


def read_value(value: Any, where: str, root: Path, ignored_keys: Sequence[str] = ()) -> tuple[Example, ...]:
    """As `read_line`, of JSON that has been read."""
    if not isinstance(value, list):
        return (_read_item(value, where, root, ignored_keys),)
    if not value:
        raise DataError(f"{where}: is an empty list")
    return tuple(_read_item(item, f"{where}, item {i}", root, ignored_keys) for i, item in enumerate(value))


def media_files(example: Example) -> Iterator[Path]:
    """Local files that the example names; URLs and data: URLs are left out."""
    for message in example.messages:
        for part in message.content:
            for source in _sources(part):
                if isinstance(source, str) and _is_path(source):
                    yield Path(source)


def _read_item(item: Any, where: str, root: Path, ignored_keys: Sequence[str]) -> Example:
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: must be an object, not {type(item).__name__}")
    forms = [form for form in _KEYS if form in item]
    if len(forms) != 1:
        raise DataError(f"{where}: needs either conversations or messages; its keys are {', '.join(map(str, item))}")
    for key in item:
        if key not in _KEYS[forms[0]] and key not in ignored_keys:
            raise DataError(f"{where}: unknown key {key!r} (allowed: {', '.join(_KEYS[forms[0]])})")
    try:
        if forms[0] == "messages":
            messages, tools = as_messages(item["messages"]), tuple(as_tools(item.get("tools")))
        else:
            messages, tools = as_messages(_conversation(item)), ()
        options = {name: item[name] for name in _OPTIONS if item.get(name) is not None}
        media = MediaOptions(**options) if options else None
    except (InvalidMessage, InvalidParams) as error:
        raise DataError(f"{where}: {error}") from error
    if not any(message.role == "assistant" for message in messages):
        raise DataError(f"{where}: has no assistant turn, so there is nothing to learn from it")
    return Example(tuple(_at_root(message, root) for message in messages), tools, media, where)


# ------------------------------------------------------------------------ the official fine-tuning format


def _conversation(item: Mapping[str, Any]) -> list[Message]:
    turns = item["conversations"]
    if not isinstance(turns, list) or not turns:
        raise InvalidMessage("conversations must be a list of turns")
    names = {kind: list(_names(item.get(kind), kind)) for kind in ("image", "video")}
    left = {kind: iter(given) for kind, given in names.items()}
    messages = [_turn(turn, f"turn {i}", left) for i, turn in enumerate(turns)]
    for kind, given in names.items():
        unused = len(list(left[kind]))
        if unused:
            raise InvalidMessage(f"{len(given)} {kind} files, but only {len(given) - unused} <{kind}> tags for them")
    return messages


def _names(value: Any, kind: str) -> Iterator[str]:
    for name in [] if value is None else value if isinstance(value, list) else [value]:
        if not isinstance(name, str) or not name:
            raise InvalidMessage(f"{kind} must be a file name or a list of them, not {name!r}")
        yield name


def _turn(turn: Any, where: str, left: Mapping[str, Iterator[str]]) -> Message:
    if not isinstance(turn, Mapping) or set(turn) != {"from", "value"}:
        raise InvalidMessage(f'{where}: must be {{"from": ..., "value": ...}}')
    speaker, text = turn["from"], turn["value"]
    if speaker not in _SPEAKERS:
        raise InvalidMessage(f"{where}: unknown speaker {speaker!r} (allowed: {', '.join(_SPEAKERS)})")
    if not isinstance(text, str):
        raise InvalidMessage(f"{where}: value must be a string, not {type(text).__name__}")
    role = _SPEAKERS[speaker]
    if role != "user":  # said to the letter; a <video> in an answer may well be HTML
        return Message(role, (TextPart(text),) if text else ())  # type: ignore[arg-type]
    return Message("user", tuple(_parts(text, where, left)))


def _parts(text: str, where: str, left: Mapping[str, Iterator[str]]) -> Iterator[Part]:
    """Text around the tags is stripped, and left out where nothing remains, as in the official code."""
    for piece in _TAGS.split(text):
        if _TAGS.fullmatch(piece):
            kind = piece[1:-1]
            name = next(left[kind], None)
            if name is None:
                raise InvalidMessage(f"{where}: there are more {piece} tags than {kind} files")
            yield ImagePart(name) if kind == "image" else VideoPart(name)
        elif piece.strip():
            yield TextPart(piece.strip())


# ---------------------------------------------------------------------------------------------- paths


def _at_root(message: Message, root: Path) -> Message:
    """The message with its relative media paths taken from `root`."""
    content = tuple(_part_at_root(part, root) for part in message.content)
    return message if content == message.content else replace(message, content=content)


def _part_at_root(part: Part, root: Path) -> Part:
    if isinstance(part, ImagePart) and isinstance(part.image, str) and _is_path(part.image):
        return replace(part, image=str(root / part.image))
    if isinstance(part, VideoPart) and isinstance(part.video, str) and _is_path(part.video):
        return replace(part, video=str(root / part.video))
    if isinstance(part, VideoPart) and isinstance(part.video, tuple):
        frames = tuple(str(root / f) if isinstance(f, str) and _is_path(f) else f for f in part.video)
        return replace(part, video=frames)
    return part


def _sources(part: Part) -> Sequence[Any]:
    if isinstance(part, ImagePart):
        return (part.image,)
    if isinstance(part, VideoPart):
        return part.video if isinstance(part.video, tuple) else (part.video,)
    return ()


def _is_path(source: str) -> bool:
    return "://" not in source and not source.startswith(("data:", "file:"))
