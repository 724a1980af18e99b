"""Options that several commands share, in groups; each group is one frozen object.

A command takes groups as parameters, and `command` spreads their fields into options:

    @command
    def chat(model: ModelOptions, sampling: SamplingOptions) -> None: ...

None means that the option was not given. Values are checked by the types they become.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from typer import Option

from qwen3vl.cli.failures import reporting
from qwen3vl.errors import InvalidParams
from qwen3vl.model.hub import DEFAULT_MODEL
from qwen3vl.settings import PRESET_NAMES, MediaOptions, SamplingParams, check_choice, check_integer

if TYPE_CHECKING:
    from qwen3vl.vlm import VLM, LoadProgress

DEFAULT_MAX_TOKENS = 2048  # an answer that never ends shall not run for hours


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Which checkpoint, and where it runs."""

    model: Annotated[str, Option(help="Folder, name on the hub, or small: the one in this package.")] = DEFAULT_MODEL
    source: Annotated[str, Option(help="Hub of names: huggingface or modelscope.")] = "huggingface"
    revision: Annotated[str | None, Option(help="Branch, tag or commit on the hub.")] = None
    device: Annotated[str, Option(help="auto (CUDA where there is one), cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[str, Option(help="auto (the checkpoint's), float32, bfloat16 or float16.")] = "auto"
    device_map: Annotated[str | None, Option(help="auto spreads the layers over several devices.")] = None
    quantize: Annotated[
        str | None,
        Option(help="int4 or int8 weights, made while loading; on the CPU. For `qwen3vl quantize` folders not needed."),
    ] = None
    attention: Annotated[str | None, Option(help="sdpa (default on GPUs) or flash_attention_2 (CUDA).")] = None
    max_context: Annotated[int | None, Option(help="Bound on prompt and answer, in tokens.")] = None
    kv_memory: Annotated[
        str | None,
        Option(metavar="SIZE", help="Memory for keys and values, as 4GiB or 512MiB [default: half of what is free]."),
    ] = None
    kv_dtype: Annotated[
        str | None,
        Option(
            help="Of keys and values: int8 (twice the tokens of bfloat16, a little less exactly), bfloat16 or model "
            "(what it computes in) [default: bfloat16 for int4 and int8 weights, else model]."
        ),
    ] = None
    vision_cache: Annotated[
        str, Option(metavar="SIZE", help="Memory for what was seen of earlier pictures and videos.")
    ] = "1GiB"
    deterministic: Annotated[
        bool, Option("--deterministic", help="Same answer to the last bit, whatever else runs or is cached; slower.")
    ] = False

    def __post_init__(self) -> None:
        check_choice("--source", self.source, ("huggingface", "modelscope"))
        check_choice("--dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        check_integer("--max-context", self.max_context, minimum=1)
        check_choice("--kv-dtype", self.kv_dtype or "int8", ("model", "bfloat16", "int8"))
        check_choice("--device-map", self.device_map or "auto", ("auto",))
        check_choice("--attention", self.attention or "sdpa", ("sdpa", "flash_attention_2"))
        self._check_quantize()

    def _check_quantize(self) -> None:
        """What the loader would refuse, before media are prepared for it."""
        check_choice("--quantize", self.quantize or "int4", ("int4", "int8"))
        if self.quantize is None:
            return
        if self.device not in ("auto", "cpu") or self.device_map is not None:
            where = f"--device {self.device}" if self.device_map is None else f"--device-map {self.device_map}"
            raise InvalidParams(f"--quantize {self.quantize} runs on the CPU only: leave out {where}")
        if self.dtype not in ("auto", "float32"):
            raise InvalidParams(
                f"--quantize {self.quantize} leaves float32 beside the packed weights, not {self.dtype}"
            )

    def load(self, progress: LoadProgress | None = None) -> VLM:
        """The handle; its weights are read when the first request has been checked. Imports torch."""
        if not sys.stderr.isatty():  # the hub's own bars would be lines in a log
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from qwen3vl.vlm import load

        return load(
            self.model,
            source=self.source,  # type: ignore[arg-type]
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            device_map=self.device_map,
            quantize=self.quantize,  # type: ignore[arg-type]
            attention=self.attention,
            max_context=self.max_context,
            kv_memory=self.kv_memory,
            kv_dtype=self.kv_dtype,  # type: ignore[arg-type]
            vision_cache=self.vision_cache,
            deterministic=self.deterministic,
            lazy=True,
            progress=progress,
        )


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the answer's tokens are chosen; fields named as in SamplingParams."""

    preset: Annotated[str, Option(help=f"Settings to start from: {', '.join(PRESET_NAMES)}.")] = "greedy"
    max_tokens: Annotated[
        int | None,
        Option(
            help=f"Bound on the answer [default: {DEFAULT_MAX_TOKENS} or the preset's, as far as the context holds]."
        ),
    ] = None
    min_tokens: Annotated[int | None, Option(help="No end before this many tokens.")] = None
    temperature: Annotated[float | None, Option(help="0 takes the most likely token each time.")] = None
    top_p: Annotated[float | None, Option(help="Keep the likeliest tokens of this total probability.")] = None
    top_k: Annotated[int | None, Option(help="Keep this many of the likeliest tokens.")] = None
    min_p: Annotated[float | None, Option(help="Keep tokens with this share of the likeliest's probability.")] = None
    presence_penalty: Annotated[float | None, Option(help="-2 to 2; for tokens already in the answer.")] = None
    frequency_penalty: Annotated[float | None, Option(help="-2 to 2; grows with each repetition.")] = None
    repetition_penalty: Annotated[float | None, Option(help="1 is off; over prompt and answer.")] = None
    seed: Annotated[int | None, Option(help="Same seed, same request, same answer.")] = None
    stop: Annotated[list[str] | None, Option(help="Text that ends the answer; may be repeated.")] = None
    thinking_budget: Annotated[int | None, Option(help="Thinking editions: most tokens of reasoning.")] = None
    loop_guard: Annotated[
        str | None,
        Option(
            help="When an answer repeats itself without end: stop [default], rewind (go back, on without it) or off."
        ),
    ] = None
    n: Annotated[int | None, Option("-n", "--n", help="Number of answers; more than one needs --json.")] = None
    logprobs: Annotated[bool, Option("--logprobs", help="Log-probabilities of the tokens; needs --json.")] = False
    top_logprobs: Annotated[int | None, Option(help="Also of the likeliest at each place.")] = None

    def params(self, **changes: Any) -> SamplingParams:
        """Raises InvalidParams. `changes` go over the preset and the options."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        settings = given | changes
        params = SamplingParams.preset(settings.pop("preset"), **settings)
        return params if params.max_tokens is not None else replace(params, max_tokens=DEFAULT_MAX_TOKENS)

    def check_output(self, as_json: bool) -> None:
        """Refuse what only --json can show."""
        for name, given in (("-n", (self.n or 1) > 1), ("--logprobs", self.logprobs)):
            if given and not as_json:
                raise InvalidParams(f"{name} needs --json and a question")


@dataclass(frozen=True, slots=True)
class LookOptions:
    """How pictures and videos are looked at; fields named as in MediaOptions."""

    min_pixels: Annotated[int | None, Option(help="Least area of a picture or frame after resizing.")] = None
    max_pixels: Annotated[int | None, Option(help="Greatest area; 1024 pixels are about a token.")] = None
    fps: Annotated[float | None, Option(help="Frames to look at per second of video.")] = None
    num_frames: Annotated[int | None, Option(help="Frames to look at in all; instead of --fps.")] = None
    min_frames: Annotated[int | None, Option(help="Least frames that --fps gives.")] = None
    max_frames: Annotated[int | None, Option(help="Most frames that --fps gives.")] = None
    total_pixels: Annotated[int | None, Option(help="Bound on frames x height x width of a video.")] = None
    cap_frame_pixels: Annotated[
        bool, Option("--cap-frame-pixels", help="Also bound each frame, as qwen-vl-utils does.")
    ] = False
    video_start: Annotated[float | None, Option(help="Look from this second of the video ...")] = None
    video_end: Annotated[float | None, Option(help="... to this one.")] = None
    timestamps: Annotated[str, Option(help="Times told to the model: pts (the file's) or index.")] = "pts"
    video_markers: Annotated[str, Option(help="release, or transformers5.")] = "release"

    def media(self, **changes: Any) -> MediaOptions:
        """Raises InvalidParams."""
        return MediaOptions(**{**asdict(self), **changes})


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Give typer a function whose parameters are the fields of the groups that `function` takes.

    What it raises is reported (failures.py); as JSON if its parameter `as_json` is set.
    """
    groups: dict[str, type] = {}
    parameters = []
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if isinstance(kind, type) and is_dataclass(kind):
            groups[parameter.name] = kind
            parameters += _parameters(kind)
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def spread(**values: Any) -> None:
        with reporting(bool(values.get("as_json"))):
            own = {name: kind(**{f.name: values.pop(f.name) for f in fields(kind)}) for name, kind in groups.items()}
            function(**values, **own)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if f.default is MISSING else f.default,
            annotation=hints[f.name],
        )
        for f in fields(group)
    ]
