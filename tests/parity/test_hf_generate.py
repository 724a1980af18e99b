"""The model card's quick start gives the same tokens on our classes as on transformers'."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import qwen3vl
from qwen3vl.errors import ConfigError, InvalidParams, InvalidRequest, UnsupportedOption
from tests import models, oracle

NAMES = {"4b": "Qwen3VL", "8b": "Qwen3VL", "30b-a3b": "Qwen3VLMoe"}


def picture(seed: int, width: int = 90, height: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def user(*parts: Any) -> list[dict[str, Any]]:
    content = [{"type": "text" if isinstance(p, str) else "image"} for p in parts]
    for entry, part in zip(content, parts, strict=True):
        entry[entry["type"]] = part
    return [{"role": "user", "content": content}]


CASES: dict[str, Any] = {
    "picture": user(picture(1), "Describe this image."),
    "several": user(picture(1), picture(2, 200, 40), "Compare 你好."),
    "none": user("No picture."),
}
CASES["batch"] = [CASES["none"], CASES["several"], CASES["picture"]]


FULL, SMALL = models.folder, models.small_folder  # the whole vocabulary, or 1000 tokens: much faster
PARTS: dict[str, list[tuple[models.Part, ...]]] = {
    "picture": [(6, ("image", 4, 6), 5)],
    "two": [(3, ("image", 4, 6), 2, ("image", 6, 4), 5)],
    "none": [(9,)],
    "batch": [(25,), (3, ("image", 4, 6), 2, ("image", 6, 4), 5), (4, ("image", 4, 4), 2)],
}


@cache
def ours(folder: Path) -> Any:
    return qwen3vl.AutoModelForImageTextToText.from_pretrained(folder, dtype="auto", attn_implementation="sdpa")


@cache
def theirs(folder: Path) -> Any:
    name = "Qwen3VLMoe" if "moe" in (folder / "config.json").read_text() else "Qwen3VL"
    return load_theirs(folder, name)


def load_theirs(folder: Path, name: str) -> Any:
    oracle.import_torchvision()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    kind = getattr(transformers, f"{name}ForConditionalGeneration")
    return kind.from_pretrained(folder, dtype=torch.float32)


@cache
def inputs_of(case: str) -> Any:
    processor = qwen3vl.AutoProcessor.from_pretrained(models.folder("4b"))
    processor.tokenizer.padding_side = "left"
    padding = {"padding": True} if case == "batch" else {}
    return processor.apply_chat_template(
        CASES[case], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt", **padding
    )


@cache
def small_inputs(case: str) -> Any:
    """For the model with a vocabulary of 1000."""
    config = models.small_config()
    return models.oracle_inputs(
        [models.make_prompt(config, *parts, seed=i) for i, parts in enumerate(PARTS[case])], config
    )


def assert_same(case: str, folder: Path | None = None, **options: Any) -> torch.Tensor:
    """-> the answers, the same from both libraries with the same random numbers; without `folder` the small model's."""
    inputs, out = inputs_of(case) if folder else small_inputs(case), []
    if not folder:
        options = {"eos_token_id": 999, "pad_token_id": 11, **options}
    for model in (ours(folder or SMALL("4b")), theirs(folder or SMALL("4b"))):
        torch.manual_seed(7)
        out.append(model.generate(**inputs, **options))
    mine, other = out
    assert mine.shape == other.shape and torch.equal(mine, other)
    return mine[:, inputs["input_ids"].shape[1] :]


# ----------------------------------------------------------------------------------------- the card


def card(library: Any, processor: Any, folder: Path, name: str) -> list[str]:
    """The card's snippet; changed are the library, the path, the picture and float32."""
    model = getattr(library, f"{name}ForConditionalGeneration").from_pretrained(
        folder, dtype="auto", **({"device_map": "auto"} if library is qwen3vl else {})
    )
    messages = [
        {
            "role": "user",
            "content": [{"type": "image", "image": picture(1)}, {"type": "text", "text": "Describe this image."}],
        }
    ]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    inputs = inputs.to(model.device)
    torch.manual_seed(3)
    generated_ids = model.generate(**inputs, max_new_tokens=24)
    generated_ids_trimmed = [
        out_ids[len(in_ids) :] for in_ids, out_ids in zip(inputs.input_ids, generated_ids, strict=True)
    ]
    return processor.batch_decode(generated_ids_trimmed, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_the_cards_snippet(edition: str) -> None:
    """With the checkpoint's own generation_config.json, which samples."""
    import transformers

    folder = models.folder(edition)
    mine = card(qwen3vl, qwen3vl.AutoProcessor.from_pretrained(folder), folder, NAMES[edition])
    assert mine == card(transformers, oracle.processor(folder), folder, NAMES[edition])
    assert len(mine[0]) > 20


@pytest.mark.parametrize("edition", [pytest.param("8b", marks=pytest.mark.slow), "30b-a3b"])
def test_greedy_tokens_of_a_padded_batch(edition: str) -> None:
    answer = assert_same("batch", FULL(edition), do_sample=False, max_new_tokens=64)
    assert answer.shape == (3, 64) and all(len(set(row)) > 16 for row in answer.tolist())


@pytest.mark.parametrize("case", ["picture", "two", "none"])
def test_greedy_tokens(case: str) -> None:
    answer = assert_same(case, do_sample=False, max_new_tokens=64)
    assert len(set(answer[0].tolist())) > 16


def test_greedy_tokens_of_the_tied_model_with_its_whole_vocabulary() -> None:
    assert assert_same("several", FULL("4b"), do_sample=False, max_new_tokens=64).shape == (1, 64)


SETTINGS: list[dict[str, Any]] = [
    {"do_sample": True},
    {"do_sample": True, "temperature": 1.5, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.3},
    {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.2},
    {"do_sample": True, "min_p": 0.2, "top_k": 0},
    {"do_sample": False, "repetition_penalty": 1.5},
    {},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings(settings: dict[str, Any]) -> None:
    assert assert_same("batch", **settings, max_new_tokens=12).shape == (3, 12)


def test_the_repetition_penalty_does_not_count_padding() -> None:
    """The padding is made of the token that is the answer; counted, it would not be any more."""
    ids, mask = torch.randint(0, 900, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    options = {"do_sample": False, "repetition_penalty": 3.0, "eos_token_id": 999, "pad_token_id": 11}
    answer = int(ours(SMALL("4b")).generate(ids[:1], mask[:1], max_new_tokens=1, **options)[0, -1])
    padded = torch.cat((torch.full((2, 5), answer), ids), dim=1)
    mask = torch.cat((torch.zeros(2, 5, dtype=torch.int64), mask), dim=1)
    kinds = torch.zeros_like(padded)
    mine, other = (
        model.generate(input_ids=padded, attention_mask=mask, mm_token_type_ids=kinds, max_new_tokens=6, **options)
        for model in (ours(SMALL("4b")), theirs(SMALL("4b")))
    )
    assert torch.equal(mine, other) and mine[0, 17] == answer


# ------------------------------------------------------------------------------------- where it ends


def test_an_end_token_stops_a_row_and_the_rest_goes_on() -> None:
    free = assert_same("batch", do_sample=False, max_new_tokens=20)
    ends = [int(free[0, 5]), int(free[1, 9])]
    answer = assert_same("batch", do_sample=False, max_new_tokens=20, eos_token_id=ends, pad_token_id=11)
    assert (answer[0] == 11).any() and answer.shape[1] == 20
    every = [int(free[row, 4]) for row in range(3)]
    answer = assert_same("batch", do_sample=False, max_new_tokens=20, eos_token_id=every, pad_token_id=11)
    assert answer.shape[1] <= 5
    assert_same("batch", do_sample=True, temperature=1.5, max_new_tokens=20, eos_token_id=every, pad_token_id=11)


def test_the_least_number_of_tokens() -> None:
    free = assert_same("picture", do_sample=False, max_new_tokens=12)
    end = int(free[0, 2])
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": end}
    assert assert_same("picture", **options).shape[1] == 3
    longer = assert_same("picture", **options, min_new_tokens=6)
    assert longer.shape[1] >= 6 and end not in longer[0, :6].tolist()


def test_lengths() -> None:
    num_tokens = small_inputs("none")["input_ids"].shape[1]
    assert assert_same("none", do_sample=False).shape[1] == 20
    assert assert_same("none", do_sample=False, max_length=num_tokens + 7).shape[1] == 7
    assert assert_same("none", do_sample=False, max_length=num_tokens + 7, max_new_tokens=3).shape[1] == 3


class Collected:
    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.calls.append(value.flatten().tolist())

    def end(self) -> None:
        self.ended += 1


def test_a_streamer_sees_what_transformers_shows_it() -> None:
    seen = []
    for model in (ours(SMALL("4b")), theirs(SMALL("4b"))):
        streamer = Collected()
        model.generate(**small_inputs("picture"), do_sample=False, max_new_tokens=6, streamer=streamer)
        seen.append((streamer.calls, streamer.ended))
    assert seen[0] == seen[1] and len(seen[0][0]) == 7


# -------------------------------------------------------------------------------------- checkpoints


def copied(tmp_path: Path, **generation: Any) -> Path:
    """The checkpoint with another generation_config.json; without one if nothing is given."""
    folder = shutil.copytree(SMALL("4b"), tmp_path / "model")
    (folder / "generation_config.json").unlink()
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@pytest.mark.parametrize("generation", [{}, {"do_sample": True, "temperature": 1.4, "eos_token_id": 5}])
def test_other_generation_configs(generation: dict[str, Any], tmp_path: Path) -> None:
    folder = copied(tmp_path, **generation)
    mine, other = qwen3vl.AutoModelForImageTextToText.from_pretrained(folder), load_theirs(folder, "Qwen3VL")
    for options in ({"max_new_tokens": 8}, {"max_new_tokens": 8, "do_sample": True}):
        out = []
        for model in (mine, other):
            torch.manual_seed(1)
            out.append(model.generate(**small_inputs("picture"), **options))
        assert torch.equal(*out)


def test_a_generation_config_that_cannot_be_honoured(tmp_path: Path) -> None:
    folder = copied(tmp_path, num_beams=4, bos_token_id=1, length_penalty=1.0)
    model = qwen3vl.Qwen3VLForConditionalGeneration.from_pretrained(folder)
    with pytest.raises(UnsupportedOption, match=r"generation_config\.json: num_beams cannot"):
        model.generate(**small_inputs("none"))


def test_the_auto_class_takes_either() -> None:
    for edition, name in NAMES.items():
        model = qwen3vl.AutoModelForImageTextToText.from_pretrained(SMALL(edition))
        assert type(model).__name__ == f"{name}ForConditionalGeneration"


def test_the_wrong_class_is_named() -> None:
    with pytest.raises(ConfigError, match=r"is a qwen3_vl_moe, .* use Qwen3VLMoeForConditionalGeneration"):
        qwen3vl.Qwen3VLForConditionalGeneration.from_pretrained(SMALL("30b-a3b"))
    with pytest.raises(ConfigError, match=r"is a qwen3_vl, .* use Qwen3VLForConditionalGeneration"):
        qwen3vl.Qwen3VLMoeForConditionalGeneration.from_pretrained(SMALL("4b"))


@pytest.mark.parametrize("edition", ["4b", "30b-a3b"])
def test_saved_folders_load_in_transformers(edition: str, tmp_path: Path) -> None:
    model, inputs = ours(SMALL(edition)), small_inputs("picture")
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        mine, other = model(**inputs).logits, load_theirs(tmp_path, NAMES[edition])(**inputs).logits
    assert models.difference(mine, other) < models.TOLERANCE


def test_logits_of_a_padded_batch() -> None:
    inputs = small_inputs("batch")
    mask = inputs["attention_mask"].bool()
    with torch.inference_mode():
        mine, other = ours(SMALL("4b"))(**inputs).logits, theirs(SMALL("4b"))(**inputs).logits
    assert models.difference(mine[mask], other[mask]) < models.TOLERANCE
    assert not mine[~mask].any()


def test_the_models_properties() -> None:
    model = ours(SMALL("4b"))
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.config.text.hidden_size == 96
    assert model.eval() is model


# ---------------------------------------------------------------------------------------- refusals


def test_refusals() -> None:
    folder = SMALL("4b")
    model, inputs, none = ours(folder), dict(small_inputs("two")), small_inputs("none")
    first = {**inputs, "pixel_values": inputs["pixel_values"][:24], "image_grid_thw": inputs["image_grid_thw"][:1]}
    extra = {key: inputs[key] for key in ("pixel_values", "image_grid_thw")}
    grid = inputs["image_grid_thw"]
    wrong = grid[:, [0, 2, 1]].clone()
    wrong[0] = torch.tensor([1, 2, 8])
    wrong[1] = torch.tensor([1, 4, 8])
    load = type(model).from_pretrained
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda: load(folder, load_in_8bit=True), UnsupportedOption, "load_in_8bit"),
        (lambda: load(folder, attn_implementation="eager"), UnsupportedOption, "eager"),
        (lambda: model.generate(**none, num_beams=2), UnsupportedOption, "num_beams"),
        (
            lambda: model.generate(**none, stop_strings=["a"]),
            UnsupportedOption,
            "stop_strings",
        ),
        (lambda: model(**none, labels=none["input_ids"]), UnsupportedOption, "labels"),
        (lambda: model.generate(**none, max_new_tokens=0), InvalidParams, "max_new_tokens=0"),
        (lambda: model.generate(**none, max_length=3), InvalidParams, "max_length=3"),
        (lambda: model.generate(**none, do_sample=True, temperature=0.0), InvalidParams, "do_sample=False"),
        (lambda: model.generate(**none, do_sample=True, top_p=2.0), InvalidParams, "top_p=2.0"),
        (lambda: model.generate(**first), InvalidRequest, "more image placeholders than there are images"),
        (lambda: model.generate(**none, **extra), InvalidRequest, "no prompt has placeholders for 2 pictures"),
        (lambda: model(**none, **extra), InvalidRequest, "no prompt has placeholders for 2 pictures"),
        (lambda: model.generate(**none, pixel_values=inputs["pixel_values"]), InvalidParams, "go together"),
        (
            lambda: model.generate(**{**inputs, "image_grid_thw": grid * 2}),
            InvalidRequest,
            "but grid_thw says",
        ),
        (lambda: model.generate(**{**inputs, "image_grid_thw": wrong}), InvalidRequest, "placeholders"),
        (lambda: model.generate(none["input_ids"], none["attention_mask"][:, 1:]), InvalidParams, "attention_mask is"),
        (lambda: model.generate(**small_inputs("batch"), streamer=Collected()), UnsupportedOption, "streamer"),
    ]
    for call, error, match in cases:
        with pytest.raises(error, match=match):
            call()


def test_refusals_come_before_the_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    model, none, inputs = ours(SMALL("4b")), small_inputs("none"), small_inputs("two")
    monkeypatch.setattr(model.model, "encode_visuals", None)
    monkeypatch.setattr(model.model, "forward", None)
    with pytest.raises(InvalidRequest, match="no prompt has placeholders"):
        model.generate(**none, pixel_values=inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"])
