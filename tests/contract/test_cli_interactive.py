"""The interactive chat, driven through a pseudo-terminal as a person would."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from qwen3vl.engine.settings import EngineSettings
from tests import models
from tests.fixtures.pictures import scene

pexpect = pytest.importorskip("pexpect")

PATIENCE = 120  # seconds; only a hang takes so long
BLOCK = EngineSettings().block_size
READ = re.compile(r"prompt (\d+) tokens.*: read (\d+) new tokens, (\d+) from cache")


PROGRAM = "import sys; from qwen3vl.cli.main import main; sys.exit(main())"
# Without torch: for what the prompt does before any question.
NO_MODEL = (
    "import sys, types; n = types.SimpleNamespace; sys.modules['qwen3vl.vlm'] = n(load=lambda *_, **__: n(name='')); "
)


class Terminal:
    """A chat in a terminal of its own. Waiting for something forgets everything before it."""

    def __init__(self, program: str, *arguments: object) -> None:
        self.child = pexpect.spawn(
            sys.executable,
            ["-c", program, "chat", *map(str, arguments)],
            timeout=PATIENCE,
            encoding="utf-8",
            dimensions=(40, 400),  # no line is wrapped by the terminal, however long the path of a file
            codec_errors="replace",  # a read may end inside a character
            # A test run in the background may ignore Ctrl-C, and children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "TERM": "dumb"},
        )

    def wait_for(self, pattern: str) -> re.Match[str]:
        self.child.expect(pattern)
        return self.child.match

    def prompt(self) -> None:
        self.wait_for(r"(^|\n)> $")

    def type(self, line: str) -> None:
        self.child.sendline(line)
        self.wait_for(re.escape(line) + "\r\n")  # the terminal's echo

    def ask(self, question: str) -> tuple[int, int, int]:
        """-> tokens of the prompt, read anew, and from the cache."""
        self.type(question)
        prompt, new, cached = self.wait_for(READ.pattern).groups()
        self.prompt()
        return int(prompt), int(new), int(cached)


@pytest.fixture
def media(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first.png", tmp_path / "second one.png"
    scene(320, 256, seed=1).save(first)
    scene(256, 256, seed=2).save(second)
    return first, second


@pytest.fixture
def chat(media: tuple[Path, Path]) -> Iterator[Terminal]:
    terminal = Terminal(PROGRAM, "--model", models.folder("4b"), "--verbose", "--max-tokens", 6, media[0])
    yield terminal
    terminal.child.close(force=True)


def whole_blocks(num_tokens: int) -> int:
    """What a later prompt finds of so many tokens."""
    return num_tokens // BLOCK * BLOCK


def test_a_conversation(chat: Terminal, media: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = media
    chat.wait_for(re.escape(f"{first}: 320 x 256, 80 tokens"))
    chat.prompt()

    prompt, new, cached = chat.ask("What is this?")
    assert (new, cached) == (prompt, 0)
    assert prompt > 80

    later, new, cached = chat.ask("And what is beside it?")
    assert new + cached == later
    assert cached >= whole_blocks(prompt)  # the picture and the question are not read again
    assert new < 40 + BLOCK

    # a file that is not there spoils nothing
    chat.type("/image nowhere.png")
    chat.wait_for("error: .*nowhere.png")
    chat.prompt()
    # nor does a command that is none
    chat.type("/picture nowhere.png")
    chat.wait_for("error: /picture is no command")
    chat.prompt()

    # another picture, later: itself is read, the first is not
    chat.type(f"/image {second}")
    chat.wait_for(re.escape(f"{second}: 256 x 256, 64 tokens"))
    chat.prompt()
    third, new, cached = chat.ask("Compare the two.")
    assert cached >= whole_blocks(later)
    assert 64 < new < 64 + 40 + BLOCK
    assert new + cached == third

    # Ctrl-C stops the answer and not the program
    for line in ("/set max_tokens 5000", "/set min_tokens 5000"):
        chat.type(line)
        chat.prompt()
    chat.type("Tell a long story.")
    begun = chat.wait_for(r"\S[^\r\n]{19}").group()
    chat.child.sendintr()
    chat.wait_for(r"\[stopped\]")
    chat.prompt()
    for line in ("/set max_tokens", "/set min_tokens"):
        chat.type(line)
        chat.prompt()
    _, _, cached = chat.ask("Go on.")
    assert cached >= whole_blocks(third)  # what was written before the stop is still a conversation

    saved = tmp_path / "talk.json"
    chat.type(f"/save {saved}")
    chat.wait_for("10 turns written")
    chat.prompt()
    talk = json.loads(saved.read_text())
    assert [message["role"] for message in talk["messages"]] == ["user", "assistant"] * 5
    assert talk["stopped"] == [7]
    assert begun.split()[0] in talk["messages"][7]["content"][0]["text"]
    assert talk["messages"][4]["content"][0] == {"type": "image", "image": str(second)}

    # a new system prompt stands before everything, so all is read anew
    chat.type("/system Be brief.")
    chat.prompt()
    _, _, cached = chat.ask("Again.")
    assert cached < BLOCK

    chat.type("/clear")
    chat.prompt()
    prompt, _, _ = chat.ask("Hello")
    assert prompt < 30

    chat.child.sendeof()
    chat.wait_for(pexpect.EOF)
    chat.child.close()
    assert chat.child.exitstatus == 0


def test_ctrl_c_at_the_prompt() -> None:
    chat = Terminal(NO_MODEL + PROGRAM)
    chat.prompt()
    chat.child.send("half a line")
    chat.wait_for("half a line")
    chat.child.sendintr()  # clears the line
    chat.prompt()
    chat.child.sendintr()
    chat.wait_for("Ctrl-C again or Ctrl-D leaves")
    chat.prompt()
    chat.type("/nonsense")  # something else between: not twice in a row
    chat.prompt()
    chat.child.sendintr()
    chat.wait_for("Ctrl-C again or Ctrl-D leaves")
    chat.prompt()
    chat.child.sendintr()
    chat.wait_for(pexpect.EOF)
    chat.child.close()
    assert chat.child.exitstatus == 0
