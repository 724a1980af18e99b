"""Paths, data: URLs and bytes: what is found, what is refused, what the messages say."""

from __future__ import annotations

import base64
import gc
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3vl.errors import (
    InvalidParams,
    MediaDecodeError,
    MediaError,
    MediaForbidden,
    MediaNotFound,
    MediaTooLarge,
)
from qwen3vl.processor.fetch import Media, MediaPolicy, display_name, fetch

LIBRARY, SERVER = MediaPolicy.library(), MediaPolicy.server()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a b.bin"
    path.write_bytes(b"content")
    return path


def read(media: Media) -> bytes:
    with media.open() as stream:
        return stream.read()


def test_paths_and_file_urls_are_not_read_into_memory(file: Path) -> None:
    for source in (file, str(file), f"file://{file}", file.as_uri(), f"file://localhost{file}", f"file:{file}"):
        media = fetch(source, LIBRARY)
        assert media.path == file
        assert media.data is None
        assert read(media) == b"content"


def test_file_names_with_hash_and_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "a#1?b.bin"
    path.write_bytes(b"x")
    assert fetch(f"file://{path}", LIBRARY).path == path


def test_bytes() -> None:
    assert read(fetch(b"abc", LIBRARY)) == b"abc"
    assert read(fetch(bytearray(b"abc"), SERVER)) == b"abc"
    with pytest.raises(MediaTooLarge, match=r"3 bytes, above the limit of 2"):
        fetch(b"abc", replace(LIBRARY, max_bytes=2))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFound, match=r"nothing\.png"):
        fetch(tmp_path / "nothing.png", LIBRARY)
    with pytest.raises(MediaNotFound, match="is a folder"):
        fetch(tmp_path, LIBRARY)
    with pytest.raises(MediaNotFound):
        fetch("a\0b.png", LIBRARY)
    with pytest.raises(MediaNotFound, match="data:image"):
        fetch("iVBORw0KGgo" * 1000, LIBRARY)


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(MediaForbidden, match="not a regular file"):
            fetch(path, LIBRARY)


def test_server_reads_no_files_and_tells_nothing_about_them(file: Path) -> None:
    messages = set()
    for path in (file, file.with_name("missing")):
        for source in (str(path), f"file://{path}"):
            with pytest.raises(MediaForbidden, match="allow_files") as caught:
                fetch(source, SERVER)
            messages.add(str(caught.value).replace("missing", "a b.bin").removeprefix("file://"))
    assert len({m.partition(": ")[2] for m in messages}) == 1


def test_server_has_no_network_and_library_no_http() -> None:
    with pytest.raises(MediaForbidden, match="https: is not allowed"):
        fetch("https://example.com/a.png", SERVER)
    with pytest.raises(MediaForbidden, match="http: is not allowed here, allowed: https"):
        fetch("http://example.com/a.png", LIBRARY)
    with pytest.raises(MediaForbidden, match="ftp: is not allowed"):
        fetch("ftp://example.com/a.png", LIBRARY)
    with pytest.raises(MediaForbidden, match="other hosts"):
        fetch("file://server/share/a.png", LIBRARY)


def test_file_roots_resolve_links_and_dots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir(), outside.mkdir()
    (inside / "a").write_bytes(b"1"), (outside / "b").write_bytes(b"2")
    (inside / "link").symlink_to(outside / "b")
    policy = replace(LIBRARY, file_roots=(inside,))
    assert read(fetch(inside / "a", policy)) == b"1"
    for path in (outside / "b", inside / "link", inside / ".." / "out" / "b", f"file://{inside}/../out/b"):
        with pytest.raises(MediaForbidden, match="file_roots"):
            fetch(path, policy)
    with pytest.raises(MediaForbidden, match="file_roots"):
        fetch(inside / "a", replace(LIBRARY, file_roots=()))


@given(data=st.binary(max_size=200))
def test_data_urls_round_trip(data: bytes) -> None:
    plain = base64.b64encode(data).decode()
    variants = [
        f"data:image/png;base64,{plain}",
        f"data:;BASE64,{plain.rstrip('=')}",
        f"DATA:image/png;charset=x;base64,{plain[:3]} \n{plain[3:]}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(data).decode()}",
        f"data:image/png;base64,{plain.replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}",
        "data:image/png," + "".join(f"%{b:02x}" for b in data),
    ]
    assert [fetch(v, SERVER).data for v in variants] == [data] * len(variants)


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:image/png;base64,@@@@", "data:;base64,abcde"])
def test_broken_data_urls(url: str) -> None:
    with pytest.raises(MediaDecodeError, match="data:"):
        fetch(url, LIBRARY)


@pytest.mark.parametrize("header", ["data:image/png;base64,", "data:image/png,"])
def test_large_data_urls_are_refused_and_shortened(header: str) -> None:
    with pytest.raises(MediaTooLarge) as caught:
        fetch(header + "A" * 10_000, replace(LIBRARY, max_bytes=1000))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://user:secret@host.org/a.png?signature=secret#secret", "https://host.org/a.png?..."),
        ("https://user:secret@host.org?secret", "https://host.org?..."),
        ("https://host.org/a.png", "https://host.org/a.png"),
        ("https://u:s@ecret@host.org/x@y.png", "https://host.org/x@y.png"),
        ("https://host.org/a#secret?secret", "https://host.org/a"),
        ("pictures/a?b#c@d.png", "pictures/a?b#c@d.png"),
        (b"secret", "<bytes>"),
    ],
)
def test_names_hold_no_secrets(source: str | bytes, name: str) -> None:
    assert display_name(source).startswith(name)
    assert "secret" not in display_name(source)


def test_media_can_be_sent_to_a_worker_without_its_temporary_file(file: Path) -> None:
    from qwen3vl.processor.fetch import _TemporaryFile

    media = Media("clip", path=file, _owner=_TemporaryFile(file))
    copy = pickle.loads(pickle.dumps(media))
    del copy
    gc.collect()
    assert file.exists()
    del media
    gc.collect()
    assert not file.exists()


@pytest.mark.parametrize(
    "wrong",
    [dict(schemes=("ftp",)), dict(schemes="https"), dict(max_bytes=0), dict(timeout=0), dict(max_pixels=1.5),
     dict(max_redirects=-1), dict(allowed_hosts="example.com")],
)  # fmt: skip
def test_policy_checks_itself(wrong: dict) -> None:
    with pytest.raises(InvalidParams, match=next(iter(wrong))):
        MediaPolicy(**wrong)


@given(text=st.text(max_size=50))
def test_any_text_is_answered_with_our_errors(text: str) -> None:
    for policy in (SERVER, replace(LIBRARY, schemes=())):
        try:
            fetch(text, policy)
        except MediaError:
            continue
