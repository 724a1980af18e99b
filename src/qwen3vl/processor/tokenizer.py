"""Text to token ids and back: the checkpoint's byte-level BPE, run by the `tokenizers` library.

Control tokens (`<|im_end|>`, `<|image_pad|>`, `<think>` ...) are the checkpoint's added tokens. Whether
one that stands in a text becomes the token or stays ordinary characters is the caller's choice at
every call: `encode(text, allow_special=...)`. control_tokens.py makes that choice for prompts.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from qwen3vl.errors import CheckpointNotFound, ConfigError

IMAGE_PAD = "<|image_pad|>"
VIDEO_PAD = "<|video_pad|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
THINK_START = "<think>"
THINK_END = "</think>"
TOOL_CALL_START = "<tool_call>"
TOOL_CALL_END = "</tool_call>"

# How Qwen2 and later split text before BPE; from the pre_tokenizer entry of the official tokenizer.json.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """The tokenizer of one checkpoint.

    Attributes:
        added_tokens: text -> id of every added token, special or not.
        special_ids: ids that `decode(..., skip_special_tokens=True)` leaves out.
        eos_token_ids: tokens that end an answer, from generation_config.json.
        named_tokens: `eos_token`, `pad_token` ... as tokenizer_config.json names them, for templates.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos_token_ids: Sequence[int] = (),
        named_tokens: dict[str, str] | None = None,
    ) -> None:
        self._with_added = backend
        self._plain = _without_added_tokens(backend)
        added = backend.get_added_tokens_decoder()
        self.added_tokens = {token.content: token_id for token_id, token in added.items()}
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.eos_token_ids = tuple(eos_token_ids)
        self.named_tokens = dict(named_tokens or {})
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read tokenizer.json, or else vocab.json, merges.txt and tokenizer_config.json.

        Raises CheckpointNotFound if a file is missing, ConfigError if one is broken; both name it.
        """
        folder = Path(folder)
        config = _read_json(folder / "tokenizer_config.json")
        backend = _read_backend(folder)
        _add_declared_tokens(backend, config, folder / "tokenizer_config.json")
        named = {
            key: token
            for key in ("eos_token", "pad_token", "bos_token", "unk_token")
            if (token := _content(config.get(key)))
        }
        return cls(backend, _eos_token_ids(folder, backend, named), named)

    # ------------------------------------------------------------------------------------- encoding

    def encode(self, text: str, *, allow_special: bool) -> list[int]:
        """Token ids of `text`; `allow_special` says whether added tokens written in it count as such."""
        backend = self._with_added if allow_special else self._plain
        return backend.encode(text, add_special_tokens=False).ids

    def encode_segments(self, segments: Iterable[tuple[str, bool]]) -> list[int]:
        """The ids of (text, allow_special) segments, each encoded on its own, one after the other."""
        return [token for text, special in segments for token in self.encode(text, allow_special=special)]

    def id_of(self, token: str) -> int:
        """The id of an added token. Raises ConfigError if the checkpoint has no such token."""
        if token not in self.added_tokens:
            raise ConfigError(f"the tokenizer has no token {token!r}, which a Qwen3-VL prompt needs")
        return self.added_tokens[token]

    # ------------------------------------------------------------------------------------- decoding

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD, ids without a token become nothing."""
        decoder = self.incremental_decoder(skip_special_tokens=skip_special_tokens)
        return "".join(map(decoder.push, ids)) + decoder.flush()

    def incremental_decoder(self, *, skip_special_tokens: bool = True) -> IncrementalDecoder:
        return IncrementalDecoder(self, skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; nothing for ids beyond the vocabulary, as in transformers.

        The embedding has more rows than there are tokens, so a model may well sample such an id.
        """
        if token_id in self._added_bytes:
            return self._added_bytes[token_id]
        token = self._plain.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
        return b"" if token is None else bytes(_BYTE_OF_CHAR[char] for char in token)

    @cached_property
    def _added_bytes(self) -> dict[int, bytes]:
        return {token_id: content.encode() for content, token_id in self.added_tokens.items()}


class IncrementalDecoder:
    """Decodes one token at a time and never gives out half a character.

    The pieces that `push` returns, then `flush`, joined, are exactly `Tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that has become certain with this token; empty inside a character."""
        if token_id in self._skipped:
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(int(token_id)))

    def flush(self) -> str:
        """What is left at the end of the answer: U+FFFD if it stopped inside a character."""
        return self._utf8.decode(b"", final=True)


def _byte_of_char() -> dict[str, int]:
    """Byte-level BPE writes each byte as one printable character (GPT-2, encoder.py).

    Printable Latin-1 bytes stand for themselves, the other 68 for U+0100, U+0101, ... in order:
    byte 0x41 is "A", byte 0x00 is U+0100, byte 0x20 (the space, 33rd of them) is U+0120.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()


# ------------------------------------------------------------------------------------------- reading


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    try:
        backend = tokenizers.Tokenizer.from_file(str(path)) if path.is_file() else _from_vocab(folder)
    except CheckpointNotFound:
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ConfigError(f"{folder}: the tokenizer files cannot be read ({error})") from error
    if not isinstance(backend.decoder, decoders.ByteLevel):
        raise ConfigError(f"{path}: not a byte-level tokenizer (decoder {backend.decoder})")
    backend.no_truncation()
    backend.no_padding()
    return backend


def _from_vocab(folder: Path) -> tokenizers.Tokenizer:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    for path in (vocab, merges):
        if not path.is_file():
            raise CheckpointNotFound(f"{path}: no such file, and the folder has no tokenizer.json either")
    backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _add_declared_tokens(backend: tokenizers.Tokenizer, config: dict[str, Any], path: Path) -> None:
    """Add the tokens of `added_tokens_decoder` that the backend lacks, at the ids it declares."""
    declared = {int(token_id): entry for token_id, entry in config.get("added_tokens_decoder", {}).items()}
    known = backend.get_added_tokens_decoder()
    flags = ("lstrip", "rstrip", "normalized", "single_word", "special")
    for token_id in sorted(declared.keys() - known.keys()):
        entry = declared[token_id]
        token = AddedToken(entry["content"], **{flag: bool(entry.get(flag, False)) for flag in flags})
        backend.add_tokens([token])
        if (got := backend.token_to_id(entry["content"])) != token_id:
            raise ConfigError(f"{path}: {entry['content']!r} is declared as token {token_id} but falls on {got}")


def _without_added_tokens(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same pipeline and the same vocabulary in memory, blind to added tokens."""
    plain = tokenizers.Tokenizer(backend.model)
    plain.normalizer = backend.normalizer
    plain.pre_tokenizer = backend.pre_tokenizer
    plain.decoder = backend.decoder
    return plain


def _eos_token_ids(folder: Path, backend: tokenizers.Tokenizer, named: dict[str, str]) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    eos = _read_json(path).get("eos_token_id") if path.is_file() else None
    if eos is None:
        token_id = backend.token_to_id(named["eos_token"]) if "eos_token" in named else None
        if token_id is None:
            raise ConfigError(f"{folder}: neither generation_config.json nor tokenizer_config.json names an end token")
        return (token_id,)
    ids = tuple(eos) if isinstance(eos, list) else (eos,)
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or backend.id_to_token(token_id) is None:
            raise ConfigError(f"{path}: eos_token_id {token_id!r} is not a token of this tokenizer")
    return ids


def _content(token: Any) -> str | None:
    """tokenizer_config.json writes a token as a string or as an object with its `content`."""
    return token.get("content") if isinstance(token, dict) else token


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointNotFound(f"{path}: no such file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__}, not an object")
    return values
