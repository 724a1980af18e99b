"""The chat without a question: a prompt, commands that begin with "/", and Ctrl-C that stops the answer only.

Answers go to stdout, everything else to stderr. Without a terminal the lines of stdin are the questions, no prompt
is printed, and the exit code says whether all of them were answered.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Exit

from qwen3vl.cli.conversation import Conversation, Settings
from qwen3vl.cli.failures import FAILED, expected, report
from qwen3vl.cli.media import MediaPart, describe_header
from qwen3vl.cli.options import LookOptions, ModelOptions, SamplingOptions
from qwen3vl.cli.output import Screen, cut_note, receipt_lines, tell
from qwen3vl.cli.waiting import Waiting
from qwen3vl.errors import InvalidParams, InvalidRequest, Qwen3VLError
from qwen3vl.settings import PRESET_NAMES
from qwen3vl.types import Completion, ImagePart, VideoPart

try:
    import readline  # gives input() its editing and history
except ImportError:  # Windows
    readline = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from qwen3vl.vlm import VLM

_PROMPT = "> "
_SAMPLING = {f.name for f in fields(SamplingOptions)} - {"preset", "n", "logprobs", "top_logprobs"}
_LOOK = {f.name for f in fields(LookOptions)}


@dataclass
class Interactive:
    """One conversation with one model, and what is to be attached to the next question.

    Attributes:
        pending: pictures and videos for the next question.
        changes: settings that stand over those of the command line, by name.
        last: the last answer.
    """

    options: ModelOptions
    sampling: SamplingOptions
    look: LookOptions
    conversation: Conversation
    screen: Screen
    pending: list[MediaPart] = field(default_factory=list)
    verbose: bool = False
    changes: dict[str, Any] = field(default_factory=dict)
    last: Completion | None = None

    def __post_init__(self) -> None:
        self._waiting = Waiting("Preparing")
        self._saved: set[Path] = set()
        self._left = self._failed = False
        self.settings()  # bad settings are reported before anything is loaded

    @cached_property
    def model(self) -> VLM:
        def progress(done: int, total: int) -> None:
            self._waiting.stage("Loading weights", done, total)

        return self.options.load(progress)

    def settings(self) -> Settings:
        """Raises InvalidParams."""
        sampling = {name: value for name, value in self.changes.items() if name in {*_SAMPLING, "preset"}}
        look = {name: value for name, value in self.changes.items() if name in _LOOK}
        fixed = self.sampling.max_tokens is not None or "max_tokens" in sampling
        return Settings(self.sampling.params(**sampling), self.look.media(**look), fixed)

    def ask(self, question: str) -> Completion:
        """Ask about what is pending. A question that fails takes its pictures with it; one that is stopped before
        its first word leaves them pending."""
        media, self.pending = self.pending, []
        turns = len(self.conversation.turns)
        model, self._waiting = self.model, Waiting("Preparing")
        try:
            self.last = self.conversation.ask(model, question, media, self.settings(), self.screen, self._waiting)
        except KeyboardInterrupt:
            if len(self.conversation.turns) == turns:
                self.pending = media
            raise
        if self.verbose:
            self.show_receipt("")
        if (note := cut_note(self.last)) and not self.screen.silent:
            tell(note)
        return self.last

    def run(self) -> None:
        """Take lines until the end of input, /exit, or Ctrl-C twice. Raises Exit(1) if stdin is no terminal and
        something failed."""
        _ = self.model  # a wrong --model is reported before the first prompt
        if sys.stdin.isatty():
            tell(f"{self.model.name}. /help lists the commands; Ctrl-C stops an answer, Ctrl-D leaves.")
        for part in self.pending:
            self._tell_attached(part)
        while not self._left and (line := _read_line()) is not None:
            self.take(line.strip())
        if self._failed and not sys.stdin.isatty():
            raise Exit(FAILED)

    def take(self, line: str) -> None:
        """One line: a command or a question. Errors are told and end nothing."""
        try:
            if line.startswith("/"):
                self._command(line)
            elif line:
                self.ask(line)
        except KeyboardInterrupt:
            tell("[stopped]")
        except Exception as error:
            if isinstance(error, BrokenPipeError) or not expected(error):
                raise
            self._failed = True
            report(error)

    # ------------------------------------------------------------------------------------ commands

    def _command(self, line: str) -> None:
        name, _, argument = line[1:].partition(" ")
        if name not in _COMMANDS:
            raise InvalidRequest(f"/{name} is no command; /help lists them")
        _COMMANDS[name](self, argument.strip())

    def attach_image(self, source: str) -> None:
        """/image FILE: attach a picture to the next question"""
        self._attach(ImagePart(_file_name(source, "/image")))

    def attach_video(self, source: str) -> None:
        """/video FILE: attach a video to the next question"""
        self._attach(VideoPart(_file_name(source, "/video")))

    def set_system(self, text: str) -> None:
        """/system TEXT: set the system prompt; without text, remove it"""
        self.conversation.system = text or None

    def set_preset(self, name: str) -> None:
        """/preset NAME: greedy, vl, text, vl-thinking or text-thinking; options that were given stay above it"""
        if not name:
            raise InvalidParams(f"/preset needs a name: {', '.join(PRESET_NAMES)}")
        self._change("preset", name)

    def set_option(self, argument: str) -> None:
        """/set NAME VALUE: temperature, max_tokens, fps, ... as the options are called; without a value, back"""
        name, _, text = argument.partition(" ")
        name = name.replace("-", "_")
        if name not in _SAMPLING | _LOOK:
            raise InvalidParams(f"/set {name}: the settings are {', '.join(sorted(_SAMPLING | _LOOK))}")
        if not text:
            self.changes.pop(name, None)
        elif name == "stop":
            self._change(name, (text.strip(),))
        else:
            self._change(name, _value(text.strip()))

    def save(self, name: str) -> None:
        """/save FILE: write the conversation as JSON, for --load"""
        path = Path(_file_name(name, "/save")).expanduser()
        if path.exists() and path not in self._saved:
            raise InvalidRequest(f"{path}: exists already; choose another name")
        self.conversation.save(path, self.model.name)
        self._saved.add(path)
        tell(f"{path}: {len(self.conversation.turns)} turns written")

    def clear(self, _: str) -> None:
        """/clear: forget the conversation and what is attached; the system prompt stays"""
        self.conversation.clear()
        self.pending.clear()
        self.last = None

    def show_receipt(self, _: str) -> None:
        """/receipt: what the model saw for the last answer, tokens and timings"""
        for line in receipt_lines(self.last) if self.last else ["nothing has been answered yet"]:
            tell(line)

    def help(self, _: str) -> None:
        """/help: this list"""
        for action in _COMMANDS.values():
            usage, _, meaning = str(action.__doc__).partition(": ")
            tell(f"  {usage:<18}{meaning}")

    def leave(self, _: str) -> None:
        """/exit: leave"""
        self._left = True

    def _attach(self, part: MediaPart) -> None:
        self._tell_attached(part)
        self.pending.append(part)

    def _tell_attached(self, part: MediaPart) -> None:
        tell(f"{describe_header(part)}, {self._num_tokens(part)} tokens")

    def _num_tokens(self, part: MediaPart) -> int:
        from qwen3vl.processor.footprints import picture_footprint, video_footprint
        from qwen3vl.processor.policy import MediaPolicy

        front, media, policy = self.model.processor, self.settings().media, MediaPolicy.library()
        if isinstance(part, ImagePart):
            t, h, w = picture_footprint(part, front.picture_settings, media, policy).grid_thw
            return t * h * w // front.picture_settings.merge_size**2
        t, h, w = video_footprint(part, front.video_settings, media, policy).grid_thw
        return t * h * w // front.video_settings.merge_size**2

    def _change(self, name: str, value: Any) -> None:
        before = dict(self.changes)
        self.changes[name] = value
        try:
            self.settings()
        except Qwen3VLError:
            self.changes = before
            raise


_COMMANDS: dict[str, Callable[[Interactive, str], None]] = {
    "image": Interactive.attach_image,
    "video": Interactive.attach_video,
    "system": Interactive.set_system,
    "preset": Interactive.set_preset,
    "set": Interactive.set_option,
    "save": Interactive.save,
    "clear": Interactive.clear,
    "receipt": Interactive.show_receipt,
    "help": Interactive.help,
    "exit": Interactive.leave,
}


def _read_line() -> str | None:
    """The next line; None at the end of input, or after Ctrl-C on an empty line twice in a row."""
    interrupts = 0
    while interrupts < 2:
        try:
            return _prompted_line()
        except EOFError:
            if sys.stdin.isatty():
                tell("")
            return None
        except KeyboardInterrupt:
            cleared = readline is not None and bool(readline.get_line_buffer())
            interrupts = 0 if cleared else interrupts + 1
            tell("\n(Ctrl-C again or Ctrl-D leaves)" if interrupts == 1 else "")
    return None


def _prompted_line() -> str:
    if not sys.stdin.isatty():
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"standard input is not {error.encoding} text ({error.reason})") from error
        if not line:
            raise EOFError
        return line
    if sys.stdout.isatty():
        return input(_PROMPT)
    sys.stderr.write(_PROMPT)  # input() would write it among the answers
    sys.stderr.flush()
    return input()


def _file_name(argument: str, command: str) -> str:
    """A file name as typed, with or without quotes, or dragged into the terminal."""
    if not argument:
        raise InvalidRequest(f"{command} needs a file name")
    if Path(argument).exists():
        return argument
    try:
        words = shlex.split(argument)
    except ValueError:
        return argument
    return words[0] if len(words) == 1 else argument


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
