"""transformers' processor calls on our front end: what the model card's snippet needs, with transformers' defaults.

Unlike the rest of the package these follow transformers 5.23 to the letter: control tokens in user text
act unless sanitize_control_tokens=True, transparency and orientation are treated as there, timestamps of
videos are frame index / rate, and videos keep the outer markers. Options that are not known are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from qwen3vl.errors import InvalidMessage, InvalidParams, UnsupportedOption
from qwen3vl.hf_media import MediaCall, Preparer, refuse_options, split_videos
from qwen3vl.inputs import ModelInputs, Visual
from qwen3vl.model.hub import locate
from qwen3vl.processor.chat import Prompt
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.processor import Processor, media_parts
from qwen3vl.processor.settings import VisionSettings
from qwen3vl.processor.tokenizer import IMAGE_PAD, VIDEO_PAD
from qwen3vl.types import ImagePart, VideoPart

_KINDS = {IMAGE_PAD: "image", VIDEO_PAD: "video"}
_PAD = re.compile("|".join(map(re.escape, _KINDS)))


class ModelBatch(dict[str, Any]):
    """A dict of tensors whose keys are attributes too, as transformers' BatchFeature."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, device: torch.device | str | torch.dtype) -> ModelBatch:
        """Move tensors; a dtype is given to floating-point ones only."""
        for key, value in self.items():
            if isinstance(value, Tensor) and (value.is_floating_point() or not isinstance(device, torch.dtype)):
                self[key] = value.to(device)
        return self


class HfTokenizer:
    """The little of a transformers tokenizer that generation code touches."""

    def __init__(self, processor: Processor) -> None:
        self._tokenizer = processor.tokenizer
        self.padding_side = "right"
        self.pad_token = processor.tokenizer.named_tokens.get("pad_token", "<|endoftext|>")
        self.eos_token = processor.tokenizer.named_tokens.get("eos_token", "<|im_end|>")

    @property
    def pad_token_id(self) -> int:
        return self._tokenizer.id_of(self.pad_token)

    @property
    def eos_token_id(self) -> int:
        return self._tokenizer.id_of(self.eos_token)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, allow_special=True)

    def convert_tokens_to_ids(self, token: str) -> int:
        return self._tokenizer.id_of(token)

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        if clean_up_tokenization_spaces:
            raise UnsupportedOption("clean_up_tokenization_spaces=True: this tokenizer's text is never cleaned up")
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = [ids] if isinstance(ids, int) else list(ids)
        return self._tokenizer.decode(map(int, ids), skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences: Any, **options: Any) -> list[str]:
        return [self.decode(sequence, **options) for sequence in sequences]


class VisionProcessor:
    """`processor.image_processor` and `processor.video_processor`, of which code reads and sets `size`."""

    def __init__(self, processor: Processor, kind: Literal["picture", "video"]) -> None:
        self._processor, self._name = processor, f"{kind}_settings"

    @property
    def settings(self) -> VisionSettings:
        settings: VisionSettings = getattr(self._processor, self._name)
        return settings

    @property
    def size(self) -> dict[str, int]:
        """Areas in pixels: of a picture, or of all frames of a video together."""
        return {"longest_edge": self.settings.max_pixels, "shortest_edge": self.settings.min_pixels}

    @size.setter
    def size(self, size: Mapping[str, int]) -> None:
        if set(size) != {"longest_edge", "shortest_edge"}:
            raise InvalidParams(f"size has longest_edge and shortest_edge, not {', '.join(size)}")
        settings = replace(self.settings, min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"])
        setattr(self._processor, self._name, settings)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name != "size":
            raise UnsupportedOption(f"{name} cannot be set here; size can")
        super().__setattr__(name, value)


class AutoProcessor:
    """`AutoProcessor.from_pretrained(model)`, then `apply_chat_template` and `batch_decode`.

    Attributes:
        processor: our own processor beneath.
        tokenizer: has padding_side, which batches of prompts for `generate` want to be "left".
        image_processor, video_processor: have `size`, the bounds on areas.
    """

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.tokenizer = HfTokenizer(processor)
        self.image_processor = VisionProcessor(processor, "picture")
        self.video_processor = VisionProcessor(processor, "video")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> AutoProcessor:
        hub_options = {key: options.pop(key) for key in ("revision", "cache_dir", "local_files_only") if key in options}
        processor = cls(Processor.from_folder(locate(pretrained_model_name_or_path, **hub_options)))
        if "padding_side" in options:
            processor.tokenizer.padding_side = options.pop("padding_side")
        refuse_options("AutoProcessor.from_pretrained", options)
        return processor

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        add_vision_id: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        padding: bool | str = False,
        padding_side: str | None = None,
        sanitize_control_tokens: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """One conversation or a list of them: the text, its ids, or (`return_dict`) all that the model takes.

        Settings of pictures and videos (fps, num_frames, min_pixels, max_pixels ...) may be given by name or
        in `processor_kwargs`.
        """
        conversations = list(conversation) if _is_batch(conversation) else [conversation]
        call = MediaCall.read({**(processor_kwargs or {}), **options}, "apply_chat_template")
        rendering: dict[str, Any] = dict(
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            add_vision_id=add_vision_id,
            sanitize_control_tokens=sanitize_control_tokens,
        )
        if not tokenize:
            if sanitize_control_tokens:
                raise InvalidParams("sanitize_control_tokens=True requires tokenize=True")
            texts = [self.processor.render(each, **rendering).text for each in conversations]
            return texts if _is_batch(conversation) else texts[0]
        prepare, prompts = Preparer(self.processor, call), []
        for messages in map(as_messages, conversations):
            prompt = self.processor.render(messages, **rendering)
            prompts.append(self._assemble(prompt, list(map(prepare, media_parts(messages)))))
        prepare.check_used_up()
        batch = self._collate(prompts, return_tensors, padding, padding_side)
        return batch if return_dict else batch["input_ids"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        *,
        return_tensors: str | None = None,
        padding: bool | str = False,
        padding_side: str | None = None,
        **options: Any,
    ) -> ModelBatch:
        """Rendered prompts with the pictures and videos that their placeholders stand for, in order."""
        if text is None:
            raise InvalidMessage("text is needed: a rendered prompt, or a list of them")
        texts = [text] if isinstance(text, str) else list(text)
        prepare = Preparer(self.processor, MediaCall.read(options, "AutoProcessor"))
        sources = {"image": iter(_flat(images)), "video": iter(split_videos(videos))}
        parts = [_parts_of(each, sources) for each in texts]
        left = sum(len(list(stream)) for stream in sources.values())
        if left:
            raise InvalidMessage(f"{left} pictures or videos are left over: the text has no placeholders for them")
        prompts = [
            self._assemble(Prompt(each, None), list(map(prepare, own))) for each, own in zip(texts, parts, strict=True)
        ]
        prepare.check_used_up()
        return self._collate(prompts, return_tensors, padding, padding_side)

    def batch_decode(self, sequences: Any, **options: Any) -> list[str]:
        return self.tokenizer.batch_decode(sequences, **options)

    def decode(self, token_ids: Any, **options: Any) -> str:
        return self.tokenizer.decode(token_ids, **options)

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **options: Any
    ) -> list[str]:
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **options)

    def _assemble(self, prompt: Prompt, visuals: Sequence[Visual]) -> ModelInputs:
        return self.processor.assemble(prompt, visuals, ["transformers5"] * len(visuals))

    def _collate(
        self, prompts: Sequence[ModelInputs], return_tensors: str | None, padding: bool | str, padding_side: str | None
    ) -> ModelBatch:
        if return_tensors not in (None, "pt"):
            raise UnsupportedOption(f"return_tensors={return_tensors!r}: 'pt' or None")
        if padding not in (False, True, "longest"):
            raise UnsupportedOption(f"padding={padding!r}: True or False")
        side = padding_side or self.tokenizer.padding_side
        if side not in ("left", "right"):
            raise InvalidParams(f"padding_side={side!r}: left or right")
        rows = [prompt.input_ids_T for prompt in prompts]
        longest = max(len(row) for row in rows)
        if not padding and return_tensors and any(len(row) < longest for row in rows):
            raise InvalidParams("the prompts differ in length: padding=True makes them one tensor")
        pads = [longest - len(row) if padding else 0 for row in rows]
        ids = [_pad(row, pad, self.tokenizer.pad_token_id, side) for row, pad in zip(rows, pads, strict=True)]
        mask = [_pad(np.ones_like(row), pad, 0, side) for row, pad in zip(rows, pads, strict=True)]
        batch = ModelBatch(input_ids=ids, attention_mask=mask, mm_token_type_ids=[self._types(row) for row in ids])
        if return_tensors:
            batch = ModelBatch({key: torch.from_numpy(np.stack(value)) for key, value in batch.items()})
        else:
            batch = ModelBatch({key: [row.tolist() for row in value] for key, value in batch.items()})
        visuals = [visual for prompt in prompts for visual in prompt.visuals]
        for kind, values, grids in (
            ("image", "pixel_values", "image_grid_thw"),
            ("video", "pixel_values_videos", "video_grid_thw"),
        ):
            own = [visual for visual in visuals if visual.kind == kind]
            if own:
                batch[values] = torch.from_numpy(np.concatenate([visual.patches.read() for visual in own]))
                batch[grids] = torch.tensor([visual.grid_thw for visual in own])
        return batch

    def _types(self, ids_T: np.ndarray) -> np.ndarray:
        """0 text, 1 picture, 2 video."""
        image_id, video_id = map(self.processor.tokenizer.id_of, _KINDS)
        return (ids_T == image_id) * np.int64(1) + (ids_T == video_id) * np.int64(2)


def _parts_of(text: str, sources: Mapping[str, Iterator[Any]]) -> list[ImagePart | VideoPart]:
    """What the placeholders of a rendered prompt stand for, taken from the streams in order."""
    parts: list[ImagePart | VideoPart] = []
    for kind in (_KINDS[pad] for pad in _PAD.findall(text)):
        source = next(sources[kind], None)
        if source is None:
            raise InvalidMessage(f"the text has more {kind} placeholders than there are {kind}s")
        parts.append(ImagePart(source) if kind == "image" else VideoPart(source))
    return parts


def _is_batch(conversation: Sequence[Any]) -> bool:
    return bool(conversation) and isinstance(conversation[0], (list, tuple))


def _flat(media: Any) -> list[Any]:
    """None, one item, a list, or a list per prompt (as transformers takes them) as one list."""
    if media is None:
        return []
    if not isinstance(media, (list, tuple)):
        return [media]
    return [item for each in media for item in (each if isinstance(each, (list, tuple)) else [each])]


def _pad(row: np.ndarray, pad: int, value: int, side: str) -> np.ndarray:
    return np.pad(row, (pad, 0) if side == "left" else (0, pad), constant_values=value)


def read_generation_config(folder: Path) -> dict[str, Any]:
    """generation_config.json, or nothing where there is none."""
    path = folder / "generation_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
