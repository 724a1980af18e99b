"""Which arguments are media and which is the question."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from qwen3vl.cli.media import Asked, part_of, read_arguments
from qwen3vl.errors import InvalidParams, InvalidRequest, MediaNotFound
from qwen3vl.types import ImagePart, VideoPart


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "clip.MP4", "moving.gif", "no ending"):
        Path(name).touch()


@pytest.mark.parametrize(
    ("inputs", "media", "question"),
    [
        ([], [], None),
        (["hello"], [], "hello"),
        (["a.jpg"], [ImagePart("a.jpg")], None),
        (["a.jpg", "what?"], [ImagePart("a.jpg")], "what?"),
        (["clip.MP4", "no ending", "what?"], [VideoPart("clip.MP4"), ImagePart("no ending")], "what?"),
        (["moving.gif"], [ImagePart("moving.gif")], None),
        (["https://x.org/b.png?size=3"], [ImagePart("https://x.org/b.png?size=3")], None),
        (["https://x.org/c.webm", "what?"], [VideoPart("https://x.org/c.webm")], "what?"),
        (["https://x.org/picture/7", "what?"], [ImagePart("https://x.org/picture/7")], "what?"),
        (["file:///x/c.mov"], [VideoPart("file:///x/c.mov")], None),
        (["data:image/png;base64,AAAA", "what?"], [ImagePart("data:image/png;base64,AAAA")], "what?"),
        (["a.jpg", "Is this photo.jpg?"], [ImagePart("a.jpg")], "Is this photo.jpg?"),
        (["a.jpg", "Is this https://x.org/b.png ?"], [ImagePart("a.jpg")], "Is this https://x.org/b.png ?"),
    ],
)
def test_arguments(inputs: list[str], media: list[ImagePart | VideoPart], question: str | None) -> None:
    assert read_arguments(inputs) == Asked(tuple(media), question)


def test_named_media_follow_the_others() -> None:
    asked = read_arguments(["clip.MP4", "what?"], ["no ending"], ["moving.gif"])
    assert asked.media == (VideoPart("clip.MP4"), ImagePart("no ending"), VideoPart("moving.gif"))


@pytest.mark.parametrize("last", ["photo.jpg", "photo.JPEG", "some/where/film.mkv", "my holiday photo.png"])
def test_a_file_that_is_not_there_is_never_the_question(last: str) -> None:
    with pytest.raises(MediaNotFound, match="no such file"):
        read_arguments(["a.jpg", last])


def test_words_without_quotes() -> None:
    with pytest.raises(MediaNotFound, match="only the last argument is the question"):
        read_arguments(["a.jpg", "what", "is", "this?"])


def test_a_url_that_says_nothing_is_not_guessed_at() -> None:
    with pytest.raises(InvalidParams, match="--image or --video"):
        read_arguments(["https://x.org/picture/7"])


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_question(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    for inputs in ([text], ["-"]):
        with pytest.raises(InvalidRequest, match="empty"):
            read_arguments(inputs)


def test_standard_input_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x89PNG\xff"), encoding="utf-8"))
    with pytest.raises(InvalidRequest, match="standard input is not utf-8 text"):
        read_arguments(["-"])


def test_type_of_a_data_url() -> None:
    assert isinstance(part_of("data:video/mp4;base64,AAAA"), VideoPart)
    assert isinstance(part_of("data:image/gif;base64,AAAA"), ImagePart)
