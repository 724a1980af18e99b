"""The pages about capabilities: their links lead somewhere, their commands have the options they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.cli_runner import Runner

DOCS = Path(__file__).parents[2] / "docs" / "tasks"
PAGES = sorted(DOCS.glob("*.md"))
_LINK = re.compile(r"\]\(([^)#\s]+)")
_COMMAND = re.compile(r"^\$ (qwen3vl [a-z].*)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        assert link.startswith("http") or (page.parent / link).exists(), link


def test_examples_in_the_index_exist() -> None:
    named = re.findall(r"`(examples/\w+\.py)`", (DOCS / "README.md").read_text(encoding="utf-8"))
    assert len(named) >= 9
    assert [name for name in named if not (DOCS.parents[1] / name).exists()] == []


@pytest.mark.parametrize("picture", sorted(DOCS.glob("pictures/*")), ids=lambda path: path.stem)
def test_pictures_are_small_and_used(picture: Path) -> None:
    assert picture.stat().st_size <= 100_000
    with Image.open(picture) as opened:
        opened.load()
    assert any(f"pictures/{picture.name}" in page.read_text(encoding="utf-8") for page in PAGES)


def test_commands_have_the_options_they_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(capsys, monkeypatch)
    shown = [line for page in PAGES for line in _COMMAND.findall(page.read_text(encoding="utf-8"))]
    assert len(shown) >= 15
    for line in shown:
        words = shlex.split(line, comments=True)[1:]
        usage = run(words[0], "--help")
        assert usage.code == 0, line
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= set(re.findall(r"--[a-z0-9-]+", usage.out)), line
