from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.errors import CheckpointNotFound, ConfigError
from qwen3vl.processor.tokenizer import IMAGE_PAD, THINK_START, Tokenizer
from tests import oracle

SAMPLES = [
    "Hello world",
    "  two  spaces \t\n\n\r\n end  ",
    "桌子上有什么？",
    "e\u0301 A\u030a \u212b \u1100\u1161",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "قِطَّة हिन्दी ไทย 한국어",
    "<|im_end|> <think>x</think> <|image_pad|><|not|>",
    "it's I'LL 123 3.14 ½",
    "\u0000\u0007\ufeff\u00a0\u2028\U000f0000\ufffd",
    "",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(oracle.ASSETS)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return oracle.processor().tokenizer


def check(tokenizer: Tokenizer, theirs: Any, text: str) -> None:
    ids = tokenizer.encode(text, allow_special=True)
    assert ids == theirs.encode(text)
    assert tokenizer.encode(text, allow_special=False) == theirs._encode_without_added_tokens(text)
    for skip in (True, False):
        expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


@pytest.mark.parametrize("text", SAMPLES)
def test_samples(tokenizer: Tokenizer, theirs: Any, text: str) -> None:
    check(tokenizer, theirs, text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text(tokenizer: Tokenizer, theirs: Any, text: str) -> None:
    check(tokenizer, theirs, text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ids=st.lists(st.integers(0, 151935), max_size=12), skip=st.booleans())
def test_any_ids(tokenizer: Tokenizer, theirs: Any, ids: list[int], skip: bool) -> None:
    """Broken UTF-8 and ids beyond the vocabulary included."""
    expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


@pytest.mark.slow
def test_many_languages(tokenizer: Tokenizer, theirs: Any, media: Path) -> None:
    files = sorted((media / "text/tesseract_langdata").rglob("*.training_text"))
    assert files
    for file in files:
        check(tokenizer, theirs, file.read_text(encoding="utf-8", errors="replace")[:20_000])


def test_streaming_never_gives_half_a_character(tokenizer: Tokenizer) -> None:
    text = "né \U0001f468\u200d\U0001f469 ཨོཾ 中"
    ids = tokenizer.encode(text, allow_special=False)
    decoder = tokenizer.incremental_decoder()
    pieces = [decoder.push(token) for token in ids]
    assert "" in pieces  # some token ends inside a character
    assert "".join(pieces) == text
    assert decoder.flush() == ""


def test_a_broken_tail_shows_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a\U0001f9a9", allow_special=False)[:-1]
    decoder = tokenizer.incremental_decoder()
    assert "".join(map(decoder.push, ids)) == "a"
    assert decoder.flush() == "\ufffd"
    assert tokenizer.decode(ids) == "a\ufffd"


def test_special_tokens(tokenizer: Tokenizer) -> None:
    end, think = tokenizer.id_of("<|im_end|>"), tokenizer.id_of(THINK_START)
    assert tokenizer.encode("<|im_end|>", allow_special=True) == [end]
    assert end not in tokenizer.encode("<|im_end|>", allow_special=False)
    assert tokenizer.decode([think, end]) == "<think>"  # <think> is an added token, but no special one
    assert tokenizer.eos_token_ids == (end, tokenizer.id_of("<|endoftext|>"))
    assert tokenizer.vocab_size == max(tokenizer.added_tokens.values()) + 1
    segments = [("a", True), ("<|im_end|>", False), ("<|im_end|>", True)]
    assert tokenizer.encode_segments(segments) == [
        *tokenizer.encode("a<|im_end|>", allow_special=False),
        end,
    ]
    with pytest.raises(ConfigError, match="no_such"):
        tokenizer.id_of("<|no_such|>")


def copy_files(folder: Path, *names: str) -> Path:
    for name in names:
        shutil.copyfile(oracle.ASSETS / name, folder / name)
    return folder


def test_tokenizer_json_gives_the_same(tokenizer: Tokenizer, theirs: Any, tmp_path: Path) -> None:
    copy_files(tmp_path, "tokenizer_config.json", "generation_config.json")
    theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_folder(tmp_path)
    assert loaded.added_tokens == tokenizer.added_tokens
    for text in SAMPLES:
        for special in (True, False):
            assert loaded.encode(text, allow_special=special) == tokenizer.encode(text, allow_special=special)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"tokenizer_config\.json"):
        Tokenizer.from_folder(tmp_path)
    copy_files(tmp_path, "tokenizer_config.json", "vocab.json")
    with pytest.raises(CheckpointNotFound, match=r"merges\.txt"):
        Tokenizer.from_folder(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    copy_files(tmp_path, "tokenizer_config.json")
    (tmp_path / "tokenizer.json").write_text('{"model": {')
    with pytest.raises(ConfigError, match=str(tmp_path)):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds list, not an object"):
        Tokenizer.from_folder(tmp_path)


def small_folder(folder: Path, config: dict[str, Any], eos: Any) -> Path:
    """A vocabulary of the 256 bytes alone."""
    chars = [chr(b) for b in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
    chars += [chr(0x100 + i) for i in range(256 - len(chars))]
    (folder / "vocab.json").write_text(json.dumps({char: i for i, char in enumerate(chars)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    return folder


def test_another_vocabulary(tmp_path: Path) -> None:
    added = {"256": {"content": IMAGE_PAD, "special": True}, "257": {"content": "<|im_end|>", "special": True}}
    tokenizer = Tokenizer.from_folder(small_folder(tmp_path, {"added_tokens_decoder": added}, 257))
    assert tokenizer.id_of(IMAGE_PAD) == 256 and tokenizer.eos_token_ids == (257,) and tokenizer.vocab_size == 258
    assert tokenizer.decode(tokenizer.encode("aé<|im_end|>", allow_special=True)) == "aé"


def test_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="declared as token 300 but falls on 256"):
        Tokenizer.from_folder(small_folder(tmp_path, {"added_tokens_decoder": {"300": {"content": "<x>"}}}, 1))
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id 999"):
        Tokenizer.from_folder(small_folder(tmp_path, {}, [1, 999]))
    with pytest.raises(ConfigError, match="end token"):
        Tokenizer.from_folder(small_folder(tmp_path, {}, None))


def test_bytes_of_a_token(tokenizer: Tokenizer) -> None:
    """The worked example of `_byte_of_char`, at tokens of one byte."""
    for text in ("A", "\x00", " "):
        (token,) = tokenizer.encode(text, allow_special=False)
        assert tokenizer.token_bytes(token) == text.encode()
    vocab = json.loads((oracle.ASSETS / "vocab.json").read_text())
    assert [tokenizer.token_bytes(vocab[char]) for char in ("A", "\u0100", "\u0120")] == [b"A", b"\x00", b" "]
    assert tokenizer.token_bytes(tokenizer.vocab_size) == b""
