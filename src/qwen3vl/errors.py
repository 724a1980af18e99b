"""Every error that qwen3vl raises for its user.

Qwen3VLError
├── InvalidRequest (ValueError)          what the caller asked for cannot be honoured
│   ├── InvalidMessage                   a message or one of its parts is malformed
│   ├── InvalidParams                    a generation or media setting is out of range
│   ├── UnsupportedOption                a valid option that this generator cannot honour
│   └── ContextTooLong                   more tokens than the context holds
├── MediaError (ValueError)              a picture, a video or a document
│   ├── MediaNotFound                    no such file, or the server has none
│   ├── MediaForbidden                   the media policy does not allow this source
│   ├── MediaTooLarge                    over a limit on bytes, pixels, ratio, frames or seconds
│   ├── MediaTimeout                     fetching or decoding took longer than allowed
│   └── MediaDecodeError                 not the format it claims, damaged, or unreadable
├── CheckpointError                      a model folder or repository
│   ├── CheckpointNotFound               nothing there, or it cannot be downloaded
│   ├── ConfigError (ValueError)         config.json or a processor file does not describe a Qwen3-VL
│   └── WeightsError                     missing, unexpected, mis-shaped or damaged tensors
├── DataError (ValueError)               training data: names the file, the line and what is wrong
├── ParseError (ValueError)              the model's answer does not have the form that was asked for
├── RenderError                          generated code could not be drawn: no browser, out of time or memory
└── GenerationError                      the model run itself failed
    └── RemoteError                      a remote server refused or failed (carries `status`)

Programming mistakes inside the package are `assert`s, never one of these.
"""

from __future__ import annotations


class Qwen3VLError(Exception):
    """Root of the tree: `except Qwen3VLError` catches all that this package raises on purpose."""


class InvalidRequest(Qwen3VLError, ValueError):
    """What the caller asked for cannot be honoured."""


class InvalidMessage(InvalidRequest):
    """A message or one of its parts is malformed."""


class InvalidParams(InvalidRequest):
    """A generation or media setting is out of range, or two settings exclude each other."""


class UnsupportedOption(InvalidRequest):
    """A valid option that this generator cannot honour; never silently ignored."""


class ContextTooLong(InvalidRequest):
    """The request needs more tokens than the context holds."""


class MediaError(Qwen3VLError, ValueError):
    """Something is wrong with a picture, a video or a document."""


class MediaNotFound(MediaError):
    """No such file, or the server has none."""


class MediaForbidden(MediaError):
    """The media policy does not allow this source."""


class MediaTooLarge(MediaError):
    """Over a limit on bytes, pixels, ratio, frames or seconds."""


class MediaTimeout(MediaError):
    """Fetching or decoding took longer than allowed."""


class MediaDecodeError(MediaError):
    """Not the format it claims to be, damaged, or unreadable."""


class CheckpointError(Qwen3VLError):
    """Something is wrong with a model folder or repository."""


class CheckpointNotFound(CheckpointError):
    """No model there, or it cannot be downloaded."""


class ConfigError(CheckpointError, ValueError):
    """config.json or a processor file does not describe a Qwen3-VL."""


class WeightsError(CheckpointError):
    """Missing, unexpected, mis-shaped or damaged tensors."""


class DataError(Qwen3VLError, ValueError):
    """Training data that cannot be used; the message names the file, the line and what is wrong with it."""


class ParseError(Qwen3VLError, ValueError):
    """The model's answer does not have the form that was asked for.

    Attributes:
        raw: the whole answer, where it is known.
    """

    def __init__(self, message: str, raw: str = "") -> None:
        super().__init__(message)
        self.raw = raw


class RenderError(Qwen3VLError):
    """Generated code could not be drawn: no browser, an error of its own, out of time or memory."""


class GenerationError(Qwen3VLError):
    """The model run itself failed."""


class RemoteError(GenerationError):
    """A remote server refused or failed.

    Attributes:
        status: the HTTP status, or None when no answer came.
        partial: of a streamed answer that was cut: its text so far.
    """

    def __init__(self, message: str, status: int | None = None, partial: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.partial = partial
