"""transformers' model calls on our model: the model card's quick start, with only the import line changed.

    from qwen3vl import AutoProcessor, Qwen3VLForConditionalGeneration

`generate` gives transformers' own tokens: greedy in float32 exactly, with do_sample from the global torch
generator in the way transformers draws. Options that are not known are refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from qwen3vl.config import ModelConfig
from qwen3vl.engine.runner import Runner
from qwen3vl.engine.sequence import Prompt
from qwen3vl.engine.sequence import Sequence as Answer
from qwen3vl.errors import ConfigError, InvalidParams, InvalidRequest, UnsupportedOption
from qwen3vl.hf_media import refuse_options
from qwen3vl.hf_processor import AutoProcessor, ModelBatch, read_generation_config
from qwen3vl.hf_sampling import draw_like_transformers
from qwen3vl.inputs import ModelInputs, Patches, Visual, VisualSpan
from qwen3vl.model.attention import ForwardContext
from qwen3vl.model.cache import BlockTable
from qwen3vl.model.checkpoint import load_model, save_model
from qwen3vl.model.hub import locate
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.model.vision import VisualFeatures
from qwen3vl.settings import SamplingParams
from qwen3vl.types import MediaReceipt

__all__ = [
    "AutoModelForImageTextToText",
    "AutoProcessor",
    "ModelBatch",
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
]

# transformers' own, where neither the call nor generation_config.json says anything
_DEFAULT_NEW_TOKENS = 20
_DEFAULT_TOP_K = 50
_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class CausalOutput:
    """`logits` of shape (batch, tokens, vocabulary)."""

    logits: Tensor


class _PretrainedModel:
    model_type: ClassVar[str | None] = None  # None: either

    def __init__(self, model: Qwen3VL, generation_config: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.generation_config = dict(generation_config or {})

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device_map: str | Mapping[str, str] | None = None,
        attn_implementation: str | None = None,
        **options: Any,
    ) -> Self:
        """A hub name or a folder. `dtype` None and "auto" are the checkpoint's own."""
        hub_options = {key: options.pop(key) for key in ("revision", "cache_dir", "local_files_only") if key in options}
        refuse_options(f"{cls.__name__}.from_pretrained", options)
        folder = locate(pretrained_model_name_or_path, **hub_options)
        found = ModelConfig.from_folder(folder).model_type
        if cls.model_type not in (None, found):
            right = _CLASS_OF[found].__name__
            raise ConfigError(f"{folder}: is a {found}, which {cls.__name__} is not for: use {right}")
        model = load_model(
            folder, dtype=dtype or torch_dtype or "auto", device_map=device_map, attention=attn_implementation
        )
        return (cls if cls.model_type else _CLASS_OF[found])(model, read_generation_config(folder))  # type: ignore[return-value]

    def save_pretrained(self, save_directory: str | Path) -> None:
        """config.json and weights, as transformers loads them; not the processor's files."""
        save_model(self.model, save_directory)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def to(self, target: torch.device | str | torch.dtype) -> Self:
        self.model.to(target)
        return self

    def eval(self) -> Self:
        self.model.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        **options: Any,
    ) -> CausalOutput:
        """Logits for every token; zero where the mask is. `mm_token_type_ids` follow from the ids."""
        refuse_options("forward", options)
        mask = _mask(input_ids, attention_mask)
        media = _Media(self.config, pixel_values, image_grid_thw, pixel_values_videos, video_grid_thw)
        prompts = media.prompts(input_ids, mask)
        features = [self._encode(visual) for prompt in prompts for visual in prompt.inputs.visuals]
        ids_T = input_ids[mask].to(self.device)
        positions_3T = torch.cat([torch.from_numpy(p.positions_3T) for p in prompts], dim=1).to(self.device)
        context = ForwardContext.pack([p.num_tokens for p in prompts])
        logits_TV = self.model(ids_T, positions_3T, context, VisualFeatures.join(features) if features else None)
        logits_BTV = logits_TV.new_zeros(*input_ids.shape, logits_TV.shape[-1])
        logits_BTV[mask.to(logits_TV.device)] = logits_TV
        return CausalOutput(logits_BTV)

    __call__ = forward

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        streamer: Any = None,
        **options: Any,
    ) -> Tensor:
        """-> (batch, prompt + answer) token ids: the prompts as given, answers padded behind their end.

        Options: max_new_tokens, min_new_tokens, max_length, do_sample, temperature, top_p, top_k, min_p,
        repetition_penalty, eos_token_id, pad_token_id; the checkpoint's generation_config.json gives
        what is not stated.
        """
        settings = _Generation.of(self.generation_config, options, input_ids.shape[1])
        mask = _mask(input_ids, attention_mask)
        media = _Media(self.config, pixel_values, image_grid_thw, pixel_values_videos, video_grid_thw)
        prompts = media.prompts(input_ids, mask)
        if streamer is not None:
            if len(input_ids) > 1:
                raise UnsupportedOption("streamer: one prompt at a time")
            streamer.put(input_ids.cpu())
        num_blocks = [-(-(prompt.num_tokens + settings.max_new_tokens) // _BLOCK_SIZE) for prompt in prompts]
        runner, first, rows = Runner(self.model, self.model.new_cache(sum(num_blocks), _BLOCK_SIZE)), 0, []
        for prompt, count in zip(prompts, num_blocks, strict=True):
            rows.append(Answer(prompt, BlockTable(_BLOCK_SIZE, range(first, first + count))))
            first += count
        logits_BV = torch.stack([runner.read(row) for row in rows])
        seen_BV = (
            _seen(input_ids, mask, self.config.text.vocab_size) if settings.params.repetition_penalty != 1 else None
        )
        answer = self._answer(runner, rows, logits_BV, seen_BV, settings, streamer)
        return torch.cat((input_ids.cpu(), answer), dim=1).to(input_ids.device)

    def _answer(
        self,
        runner: Runner,
        rows: Sequence[Answer],
        logits_BV: Tensor,
        seen_BV: Tensor | None,
        settings: _Generation,
        streamer: Any,
    ) -> Tensor:
        """The answers' ids, (batch, longest answer) on the CPU."""
        answers: list[list[int]] = [[] for _ in rows]
        running = list(range(len(rows)))
        for step in range(settings.max_new_tokens):
            suppressed = settings.eos_token_ids if step < settings.params.min_tokens else ()
            drawn = draw_like_transformers(logits_BV.cpu(), settings.params, seen_BV=seen_BV, suppressed=suppressed)
            for row in range(len(rows)):
                answers[row].append(int(drawn[row]) if row in running else settings.pad_token_id)
            if seen_BV is not None:
                seen_BV[torch.arange(len(rows)), [answer[-1] for answer in answers]] = True
            if streamer is not None:
                streamer.put(torch.tensor([answers[0][-1]]))
            running = [row for row in running if answers[row][-1] not in settings.eos_token_ids]
            if not running or step + 1 == settings.max_new_tokens:
                break
            logits_BV = logits_BV.clone()  # finished rows keep theirs: transformers draws for them too
            for row in running:
                rows[row].answer_ids.append(answers[row][-1])
            logits_BV[running] = runner.decode([rows[row] for row in running])
        if streamer is not None:
            streamer.end()
        return torch.tensor(answers, dtype=torch.long).reshape(len(rows), -1)

    def _encode(self, visual: Visual) -> VisualFeatures:
        t, h, w = visual.grid_thw
        return self.model.encode_visuals(torch.from_numpy(visual.patches.read()), [(h, w)] * t)


class Qwen3VLForConditionalGeneration(_PretrainedModel):
    """Dense editions: 2B, 4B, 8B, 32B."""

    model_type = "qwen3_vl"


class Qwen3VLMoeForConditionalGeneration(_PretrainedModel):
    """Mixture-of-experts editions: 30B-A3B, 235B-A22B."""

    model_type = "qwen3_vl_moe"


class AutoModelForImageTextToText(_PretrainedModel):
    """Either, as the checkpoint's config.json says."""


_CLASS_OF: dict[str, type[_PretrainedModel]] = {
    "qwen3_vl": Qwen3VLForConditionalGeneration,
    "qwen3_vl_moe": Qwen3VLMoeForConditionalGeneration,
}


class _Media:
    """The batch's pictures and videos, two streams that prompts take from in order."""

    def __init__(
        self,
        config: ModelConfig,
        pixel_values: Tensor | None,
        image_grid_thw: Tensor | None,
        pixel_values_videos: Tensor | None,
        video_grid_thw: Tensor | None,
    ) -> None:
        self._config = config
        self._merge = config.vision.spatial_merge_size
        self._placeholders = {config.image_token_id: "image", config.video_token_id: "video"}
        self._streams = {
            "image": iter(_visuals("image", pixel_values, image_grid_thw, self._merge)),
            "video": iter(_visuals("video", pixel_values_videos, video_grid_thw, self._merge)),
        }

    def prompts(self, input_ids: Tensor, mask: Tensor) -> list[Prompt]:
        """The rows without padding, each with its visuals. Raises InvalidRequest if any are left over."""
        rows = [row[keep] for row, keep in zip(input_ids.cpu(), mask.cpu(), strict=True)]
        prompts = [Prompt.of(self._take_for(ids_T), self._config) for ids_T in rows]
        left = {kind: len(list(stream)) for kind, stream in self._streams.items()}
        if any(left.values()):
            raise InvalidRequest(f"no prompt has placeholders for {left['image']} pictures and {left['video']} videos")
        return prompts

    def _take_for(self, ids_T: Tensor) -> ModelInputs:
        """The visuals of one prompt, one for each run of placeholders; a video takes one run per temporal patch."""
        visuals: list[Visual] = []
        spans: list[VisualSpan] = []
        frames_left: dict[str, tuple[int, int]] = {}  # kind -> (visual, frames still to come)
        for kind, start, length in _runs(ids_T.tolist(), self._placeholders):
            index, left = frames_left.get(kind, (0, 0))
            if left == 0:
                visual = next(self._streams[kind], None)
                if visual is None:
                    raise InvalidRequest(f"the prompt has more {kind} placeholders than there are {kind}s")
                index, left = len(visuals), visual.grid_thw[0]
                visuals.append(visual)
            t, h, w = visuals[index].grid_thw
            span = VisualSpan(start, (h, w), index, t - left)
            if span.end(self._merge) != start + length:
                raise InvalidRequest(
                    f"a {kind} of {h} x {w} patches needs {span.end(self._merge) - start} placeholders, "
                    f"the prompt has {length} at token {start}"
                )
            spans.append(span)
            frames_left[kind] = index, left - 1
        unfinished = [kind for kind, (_, left) in frames_left.items() if left]
        if unfinished:
            raise InvalidRequest("the prompt ends before the placeholders of its video do")
        return ModelInputs(ids_T.numpy(), tuple(visuals), tuple(spans))


def _visuals(kind: Any, patches_PC: Tensor | None, grid_thw: Tensor | None, merge: int) -> Iterator[Visual]:
    if (patches_PC is None) != (grid_thw is None):
        raise InvalidParams(f"{kind}: patches and grid_thw go together")
    if patches_PC is None or grid_thw is None:
        return
    start, total = 0, int(grid_thw.prod(-1).sum())
    if total != len(patches_PC):
        raise InvalidRequest(f"{kind}: {len(patches_PC)} patches, but grid_thw says {total}")
    for t, h, w in grid_thw.tolist():
        part = patches_PC[start : start + t * h * w].float().cpu().numpy()
        size = (0, 0)  # not known here: the tensors are all there is
        receipt = MediaReceipt(kind, "<tensor>", f"{kind} {start}", size, size, (t, h, w), t * h * w // merge**2)
        yield Visual(kind, Patches(part), (t, h, w), receipt)
        start += t * h * w


def _runs(ids: Sequence[int], kinds: Mapping[int, str]) -> Iterator[tuple[str, int, int]]:
    """(kind, start, length) of each run of equal placeholders."""
    start = 0
    while start < len(ids):
        end = start + 1
        if ids[start] in kinds:
            while end < len(ids) and ids[end] == ids[start]:
                end += 1
            yield kinds[ids[start]], start, end - start
        start = end


def _mask(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask.shape != input_ids.shape:
        raise InvalidParams(f"attention_mask is {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}")
    return attention_mask.bool()


def _seen(input_ids: Tensor, mask: Tensor, vocab_size: int) -> Tensor:
    """What the repetition penalty counts as said; not the padding, as in transformers."""
    seen_BV = torch.zeros(len(input_ids), vocab_size, dtype=torch.bool)
    for row, ids, keep in zip(seen_BV, input_ids.cpu(), mask.cpu(), strict=True):
        row[ids[keep]] = True
    return seen_BV


@dataclass(frozen=True, slots=True)
class _Generation:
    """generation_config.json overridden by the call's options."""

    params: SamplingParams
    max_new_tokens: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int

    @classmethod
    def of(cls, config: Mapping[str, Any], options: Mapping[str, Any], prompt_length: int) -> _Generation:
        refuse_options("generate", {key: options[key] for key in options if key not in _GENERATE_OPTIONS})
        changing = {key: value for key, value in config.items() if value not in (None, False, 0, 1, [])}
        refuse_options(
            "generation_config.json", {k: v for k, v in changing.items() if k not in _GENERATE_OPTIONS | _CONFIG_ONLY}
        )
        given = {**config, **{key: value for key, value in options.items() if value is not None}}
        eos = given.get("eos_token_id", ())
        eos = (eos,) if isinstance(eos, int) else tuple(eos)
        new_tokens = given.get("max_new_tokens")
        if new_tokens is None:
            new_tokens = given["max_length"] - prompt_length if "max_length" in options else _DEFAULT_NEW_TOKENS
        if new_tokens < 1:
            raise InvalidParams(
                f"max_new_tokens={given.get('max_new_tokens')}, max_length={given.get('max_length')}: "
                f"no room behind {prompt_length} prompt tokens"
            )
        sampling = {key: given[key] for key in ("temperature", "top_p", "min_p") if given.get(key) is not None}
        sampling["top_k"] = given.get("top_k", _DEFAULT_TOP_K) or None  # 0 is off
        if not given.get("do_sample", False):
            sampling = {"temperature": 0.0}
        elif given.get("temperature") == 0:
            raise InvalidParams("temperature=0 does not sample: use do_sample=False")
        sampling.setdefault("temperature", 1.0)
        params = SamplingParams(
            **sampling,
            repetition_penalty=given.get("repetition_penalty") or 1.0,
            min_tokens=given.get("min_new_tokens") or 0,
        )
        return cls(params, new_tokens, eos, given.get("pad_token_id", eos[0] if eos else 0))


_CONFIG_ONLY = {"bos_token_id", "transformers_version", "_from_model_config"}  # nothing to do with this package
_GENERATE_OPTIONS = {
    "max_new_tokens",
    "min_new_tokens",
    "max_length",
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "eos_token_id",
    "pad_token_id",
    "use_cache",
}
