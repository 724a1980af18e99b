"""How to look at media (MediaOptions) and how to answer (SamplingParams); part of `qwen3vl.types`.

Both check themselves when they are made and raise InvalidParams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from qwen3vl.errors import InvalidParams

KvDtype = Literal["model", "bfloat16", "int8"]  # of kept keys and values; "model": what the model computes in


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """How pictures and videos are sampled and resized. None leaves the checkpoint's own setting.

    Pixel counts are areas after resizing. A picture costs about 1 token per 1024 pixels, a video
    1 token per 2048 (two frames share their tokens).

    Attributes:
        min_pixels, max_pixels: bounds on the area of a picture, or of each frame of a video.
        fps: frames to sample per second of video; excludes `num_frames`.
        num_frames: frames to sample in all.
        min_frames, max_frames: bounds on what `fps` gives (checkpoint: 4 and 768).
        total_pixels: bound on frames x height x width of a whole video (checkpoint: 25,165,824).
        cap_frame_pixels: also bound each frame of a video by 768 tokens' worth (786,432 pixels) and
            by its even share of total_pixels, as qwen-vl-utils does. Off by default, as in
            transformers: a short clip keeps nearly its own resolution.
        video_start, video_end: the part to look at, in seconds from the start of the video.
        timestamps: "pts" tells the model the file's own presentation times (right on
            variable-rate files); "index" computes frame index / average rate as transformers does.
        video_markers: "release" as at the model's release and in vLLM; "transformers5" keeps one
            more <|vision_start|> and <|vision_end|> around each video.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    fps: float | None = None
    num_frames: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    total_pixels: int | None = None
    cap_frame_pixels: bool = False
    video_start: float | None = None
    video_end: float | None = None
    timestamps: Literal["pts", "index"] = "pts"
    video_markers: Literal["release", "transformers5"] = "release"

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels", "num_frames", "min_frames", "max_frames", "total_pixels"):
            check_integer(name, getattr(self, name), minimum=1)
        check_number("fps", self.fps, 0, math.inf, open_low=True, open_high=True)
        check_number("video_start", self.video_start, 0, math.inf, open_high=True)
        check_number("video_end", self.video_end, 0, math.inf, open_low=True, open_high=True)
        check_choice("timestamps", self.timestamps, ("pts", "index"))
        check_choice("video_markers", self.video_markers, ("release", "transformers5"))
        if self.fps is not None and self.num_frames is not None:
            raise InvalidParams("fps and num_frames exclude each other: give one of them")
        for low, high in (("min_pixels", "max_pixels"), ("min_frames", "max_frames"), ("video_start", "video_end")):
            a, b = getattr(self, low), getattr(self, high)
            if a is not None and b is not None and (a > b or (low == "video_start" and a == b)):
                raise InvalidParams(f"{low}={a} is not below {high}={b}")

    def merged_with(self, override: MediaOptions | None) -> MediaOptions:
        """These options with every field that `override` sets (differs from its default) replaced.

        Setting `fps` takes back an inherited `num_frames`, and the other way round.
        """
        if override is None:
            return self
        changes = {f.name: value for f in fields(override) if (value := getattr(override, f.name)) != f.default}
        if "fps" in changes:
            changes.setdefault("num_frames", None)
        if "num_frames" in changes:
            changes.setdefault("fps", None)
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the answer's tokens are chosen.

    `temperature=0` is greedy. Penalties and filters act in the order of transformers (repetition,
    then presence and frequency, bias, temperature, top_k, top_p, min_p). None means off.

    Attributes:
        temperature, top_p, top_k, min_p, repetition_penalty: as in transformers.
        presence_penalty, frequency_penalty: as in OpenAI's API; over generated tokens only.
        seed: same seed, same request, same tokens. None draws a fresh seed.
        max_tokens: upper bound on generated tokens; None: as many as the context has room for.
        min_tokens: no stop token or stop string ends the answer before this many tokens.
        stop: strings that end the answer; they are not part of it.
        stop_token_ids: tokens that end the answer, beside the checkpoint's own.
        ignore_eos: go on after the checkpoint's end tokens.
        n: number of answers.
        logprobs, top_logprobs: report the log-probability of each token, and of the most likely ones
            (log-softmax of the model's raw logits).
        logit_bias: token id -> number added to its logit.
        thinking_budget: a Thinking edition closes its reasoning after this many tokens.
        loop_guard: what to do with an answer that repeats itself without end (engine/loop_guard.py says when
            that is): "stop" ends it with stop_reason "repetition"; "rewind" takes the repetition back and goes
            on without the token that began it, three times at most, and holds back streamed text that may
            have to be taken back; "off" lets it run.
        json_schema, regex, grammar: constraints; refused until the engine has them.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    thinking_budget: int | None = None
    loop_guard: Literal["stop", "rewind", "off"] = "stop"
    json_schema: Mapping[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        check_number("temperature", self.temperature, 0, math.inf, required=True, open_high=True)
        check_number("top_p", self.top_p, 0, 1, required=True, open_low=True)
        check_number("min_p", self.min_p, 0, 1)
        check_number("repetition_penalty", self.repetition_penalty, 0, math.inf, required=True, open_low=True)
        check_number("presence_penalty", self.presence_penalty, -2, 2, required=True)
        check_number("frequency_penalty", self.frequency_penalty, -2, 2, required=True)
        check_integer("top_k", self.top_k, minimum=1)
        check_integer("max_tokens", self.max_tokens, minimum=1)
        check_integer("min_tokens", self.min_tokens, minimum=0, required=True)
        check_integer("n", self.n, minimum=1, required=True)
        check_integer("top_logprobs", self.top_logprobs, minimum=0, required=True)
        check_integer("thinking_budget", self.thinking_budget, minimum=0)
        check_integer("seed", self.seed, minimum=0)
        check_choice("loop_guard", self.loop_guard, ("stop", "rewind", "off"))
        if any(not isinstance(s, str) or not s for s in self.stop):
            raise InvalidParams("stop must hold non-empty strings")
        if self.top_logprobs > 0 and not self.logprobs:
            raise InvalidParams("top_logprobs needs logprobs=True")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParams(f"min_tokens={self.min_tokens} is above max_tokens={self.max_tokens}")
        if any(not math.isfinite(bias) for bias in self.logit_bias.values()):
            raise InvalidParams("logit_bias values must be finite numbers")

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> SamplingParams:
        """The settings that the model card names, with `overrides`.

        `vl` and `text` are the Instruct editions', `vl-thinking` and `text-thinking` the Thinking
        editions', `greedy` the most likely token each time.
        """
        if name not in _PRESETS:
            raise InvalidParams(f"unknown preset {name!r}: choose from {', '.join(sorted(_PRESETS))}")
        return cls(**{**_PRESETS[name], **overrides})

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


# Model card of Qwen3-VL-4B-Instruct / -Thinking, "Generation Hyperparameters".
_PRESETS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "vl": dict(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5, max_tokens=16384),
    "text": dict(temperature=1.0, top_p=1.0, top_k=40, presence_penalty=2.0, max_tokens=32768),
    "vl-thinking": dict(temperature=0.6, top_p=0.95, top_k=20, presence_penalty=0.0, max_tokens=40960),
    "text-thinking": dict(temperature=1.0, top_p=0.95, top_k=20, presence_penalty=1.5, max_tokens=32768),
}
PRESET_NAMES = tuple(_PRESETS)


def check_number(
    name: str,
    value: float | None,
    low: float,
    high: float,
    *,
    required: bool = False,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    if value is None and not required:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidParams(f"{name} must be a number, not {value!r}")
    inside = (value > low if open_low else value >= low) and (value < high if open_high else value <= high)
    if not inside:  # also catches NaN
        bounds = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise InvalidParams(f"{name}={value} is outside {bounds}")


def check_integer(name: str, value: int | None, *, minimum: int, required: bool = False) -> None:
    if value is None and not required:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidParams(f"{name} must be a whole number, not {value!r}")
    if value < minimum:
        raise InvalidParams(f"{name}={value} is below {minimum}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidParams(f"{name}={value!r} is not one of {', '.join(choices)}")
