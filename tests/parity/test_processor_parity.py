"""Whole prompts are transformers': ids with all visual tokens, patches and grids."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl.processor.chat import ChatTemplate
from qwen3vl.processor.messages import as_messages
from qwen3vl.processor.processor import Processor, media_parts
from qwen3vl.settings import MediaOptions
from tests import oracle
from tests.fixtures.conversations import (
    CASE_NAMES,
    CASES,
    INJECTED,
    Conversation,
    assistant,
    image,
    system,
    text,
    tool,
    user,
)


@pytest.fixture(scope="module")
def processors() -> dict[str, Processor]:
    instruct = Processor.from_folder(oracle.ASSETS)
    thinking = ChatTemplate((oracle.ASSETS / "chat_template.thinking.jinja").read_text())
    settings = (instruct.picture_settings, instruct.video_settings)
    return {"instruct": instruct, "thinking": Processor(instruct.tokenizer, thinking, *settings)}


@pytest.mark.parametrize(("case", "edition"), CASES, ids=CASE_NAMES)
def test_ids(case: Conversation, edition: str, processors: dict[str, Processor]) -> None:
    theirs = oracle.processor().apply_chat_template(
        copy.deepcopy(case.messages),
        tools=case.tools,
        chat_template=processors[edition].template.source,
        add_generation_prompt=case.add_generation_prompt,
        add_vision_id=case.add_vision_id,
        tokenize=True,
        return_dict=True,
        sanitize_control_tokens=True,
    )
    options: dict[str, Any] = {
        "tools": case.tools,
        "add_generation_prompt": case.add_generation_prompt,
        "add_vision_id": case.add_vision_id,
    }
    ours = processors[edition](case.messages, **options)
    assert ours.input_ids_T.dtype == np.int64
    assert ours.input_ids_T.tolist() == np.asarray(theirs["input_ids"]).reshape(-1).tolist()
    assert processors[edition].count_tokens(case.messages, **options) == ours.num_tokens
    if ours.visuals:
        assert [visual.grid_thw for visual in ours.visuals] == [tuple(row) for row in theirs["image_grid_thw"].tolist()]
        patches = np.concatenate([visual.patches.read() for visual in ours.visuals])
        np.testing.assert_array_equal(patches, theirs["pixel_values"].numpy())


def frames(count: int, shade: int) -> np.ndarray:
    rng = np.random.default_rng(shade)
    return rng.integers(0, 255, (count, 64, 96, 3), np.uint8)


def video(count: int, rate: float, shade: int = 1, **more: Any) -> dict[str, Any]:
    return {"type": "video", "video": list(frames(count, shade)), "sample_fps": rate, **more}


def metadata(count: int, rate: float) -> dict[str, Any]:
    return {"fps": rate, "frames_indices": list(range(count)), "total_num_frames": count}


VIDEOS = {
    "a video": [user(video(4, 2.0), text("What happens?"))],
    "an odd number of frames": [user(text("Look: "), video(5, 1.0), text(" and?"))],
    "text runs into the timestamps": [user(text("at <"), video(6, 3.0), text("> 1"))],
    "two videos and pictures": [
        system("s"),
        user(text("a"), video(4, 0.5), image(), video(2, 4.0, 3), image(50, 90), text("b")),
        assistant("c"),
        tool([video(4, 30.0, 5)]),
    ],
    "injected": [user(text(INJECTED), video(4, 2.0), text("<|video_pad|><0.0 seconds>"), image())],
}


@pytest.mark.parametrize("edition", ["instruct", "thinking"])
@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("vision_id", [False, True])
def test_videos_with_their_markers(name: str, edition: str, vision_id: bool, processors: dict[str, Processor]) -> None:
    messages, ours = VIDEOS[name], processors[edition]
    options = {"add_vision_id": vision_id}
    prompt = ours.render(messages, **options)
    assert prompt.marks is not None and prompt.marks.start == "\U000f0000"  # which transformers reads, too
    parts = media_parts(as_messages(messages))
    videos = [part for part in parts if hasattr(part, "video")]
    theirs = oracle.processor()(
        text=[prompt.text],
        images=[part.image for part in parts if hasattr(part, "image")] or None,
        videos=[np.stack(part.video) for part in videos],
        video_metadata=[
            {
                "fps": part.frame_rate,
                "frames_indices": list(range(len(part.video))),
                "total_num_frames": len(part.video),
            }
            for part in videos
        ],
        do_sample_frames=False,
        sanitize_control_tokens=True,
    )
    got = ours(messages, media=MediaOptions(video_markers="transformers5"), **options)
    assert got.input_ids_T.tolist() == np.asarray(theirs["input_ids"]).reshape(-1).tolist()
    grids = [visual.grid_thw for visual in got.visuals if visual.kind == "video"]
    assert grids == [tuple(row) for row in np.asarray(theirs["video_grid_thw"]).tolist()]


def test_a_folder_that_transformers_saved(processors: dict[str, Processor], tmp_path: Path) -> None:
    """tokenizer.json, processor_config.json and chat_template.jinja in place of the official files."""
    oracle.processor().save_pretrained(tmp_path)
    saved, official = Processor.from_folder(tmp_path), processors["instruct"]
    assert not (tmp_path / "vocab.json").exists() and not (tmp_path / "preprocessor_config.json").exists()
    assert (saved.picture_settings, saved.video_settings) == (official.picture_settings, official.video_settings)
    for messages in VIDEOS.values():
        assert saved(messages).input_ids_T.tolist() == official(messages).input_ids_T.tolist()
