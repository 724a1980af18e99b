"""The small model in the package: what is shipped, that transformers agrees, and that answers are right.

Unlike all other tests these look at what answers mean: commands run on held-out samples of the generator, and must
reach FLOORS. A floor lies well under the number in the model's card: machines have other fonts, and samples are few.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from torch import Tensor

import qwen3vl
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.hub import SMALL_FOLDER
from qwen3vl.model.quantize import Quantization
from qwen3vl.processor.tokenizer import Tokenizer
from qwen3vl.train.evaluation import bounded, evaluate
from qwen3vl.train.metrics import Metric
from qwen3vl.train.report_rows import ROWS, Row
from qwen3vl.train.scoring import LOWER_IS_BETTER, score
from qwen3vl.train.synthetic.registry import make_sample
from qwen3vl.train.synthetic.sample import FieldsTruth, SyntheticSample
from qwen3vl.types import ImagePart, SamplingParams, VideoPart
from qwen3vl.vlm import VLM
from tests import oracle
from tests.contract.cli_runner import Ran, Runner

SEED = 7  # the card's samples have seed 0
RESULTS = SMALL_FOLDER / "results.json"


def test_size() -> None:
    files = [path for path in SMALL_FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32 * 2**20
    assert sorted(path.name for path in files if path not in (RESULTS, SMALL_FOLDER / "media.json")) == [
        "README.md", "chat_template.json", "config.json", "generation_config.json", "merges.txt", "model.safetensors",
        "preprocessor_config.json", "tokenizer_config.json", "video_preprocessor_config.json", "vocab.json",
    ]  # fmt: skip
    assert sum(weight.numel() for weight in shipped().model.parameters()) <= 15_000_000
    assert Tokenizer.from_folder(SMALL_FOLDER).vocab_size <= 8192


def test_it_computes_in_float32_and_sees_small_pictures_as_they_are() -> None:
    assert shipped().model.dtype == torch.float32
    assert shipped().picture_bounds[0] == 32 * 32
    assert shipped().name == "small"


def test_the_card_is_written() -> None:
    assert "To be written" not in (SMALL_FOLDER / "README.md").read_text(encoding="utf-8")


def test_transformers_gives_the_same_tokens() -> None:
    oracle.import_torchvision()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    sample = make_sample("question_color", "heldout", SEED, 0)
    picture, question = picture_of(sample), sample.messages[-1].text
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    processor = AutoProcessor.from_pretrained(SMALL_FOLDER)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    theirs = AutoModelForImageTextToText.from_pretrained(SMALL_FOLDER)
    assert theirs.dtype == torch.float32
    with torch.no_grad():
        generated = theirs.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    ours = shipped().chat(question, images=[picture], params=SamplingParams(max_tokens=24)).token_ids
    assert len(ours) >= 1 and generated.tolist()[: len(ours)] == list(ours)
    again = qwen3vl.Qwen3VLForConditionalGeneration.from_pretrained("small").generate(**inputs, max_new_tokens=24)
    assert again[0, inputs["input_ids"].shape[1] :].tolist()[: len(ours)] == list(ours)
    assert qwen3vl.AutoProcessor.from_pretrained("small").image_processor.size["shortest_edge"] == 32 * 32


def test_packed_weights_say_nearly_the_same() -> None:
    """What int8 and int4 change in the answers is in benchmarks/results/quantized_accuracy.md; this, in its cause."""
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "quantized_accuracy.py"))
    batches = benchmark["batches_of"](SMALL_FOLDER, benchmark["TASKS"], 2)

    def asked(quantization: Quantization | None) -> list[Tensor]:
        model = load_model(SMALL_FOLDER, dtype=torch.float32, quantize=quantization).eval()
        return [benchmark["distribution"](model, batch) for batch in batches]

    expected = asked(None)
    for quantization, divergence in ((Quantization(8), 0.002), (Quantization(4), 0.1)):
        found = asked(quantization)
        assert 0 < benchmark["compared"](expected, found)["divergence"] <= divergence
        assert benchmark["mean_loss"](found, batches) <= benchmark["mean_loss"](expected, batches) + divergence


# ------------------------------------------------------------------------------- what answers mean


@dataclass(frozen=True)
class Floor:
    """`samples` of a task, asked through a command, must score at least (errors: at most) `floor`."""

    command: str
    task: str
    samples: int
    floor: float


FLOORS = (
    Floor("chat", "first_color", 8, 0.85),
    Floor("read", "read_word", 8, 0.45),
    Floor("read", "read_line", 8, 0.45),
    Floor("chat", "question_color", 12, 0.40),
)
"""In the order of the card's rows. A row that the card does not claim (CLAIMED) need not have one."""
MARGIN = 0.08  # that a floor is worse than the card's number
CLAIMED = 0.5  # right in more than half of all cases


def test_floors_lie_under_the_card() -> None:
    rows = {task: row for row in ROWS for task in row.tasks}
    values = {row["name"]: row["value"] for row in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]}
    claimed = {row.name for row in ROWS if (1 - values[row.name] if wrong(row) else values[row.name]) > CLAIMED}
    assert claimed <= {rows[floor.task].name for floor in FLOORS}
    for floor in FLOORS:
        row = rows[floor.task]
        room = values[row.name] - floor.floor
        assert (-room if wrong(row) else room) >= MARGIN, (floor, values[row.name])


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: floor.command)
def test_answers_are_right(
    floor: Floor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(row for row in ROWS if floor.task in row.tasks)
    if floor.command == "screen":  # has no command
        (result,) = evaluate(shipped(), [floor.task], count=floor.samples, seed=SEED)
        found = sum((scored.metrics[row.metric] for scored in result.scored), Metric(0, 0))
    else:
        found, run = Metric(0, 0), Runner(capsys, monkeypatch)
        for index in range(floor.samples):
            sample = make_sample(floor.task, "heldout", SEED, index)
            file = file_of(sample, tmp_path)
            most = bounded(SamplingParams(), sample).max_tokens
            ran = run(*COMMANDS[floor.command](sample, file), "--model", "small", "--max-tokens", most, "--json")
            found += score(sample, said(ran)).metrics[row.metric]
    assert found.value is not None
    good = found.value <= floor.floor if wrong(row) else found.value >= floor.floor
    assert good, f"{floor.command}: {row.metric} of {floor.task} is {found.value:.2f}, the floor is {floor.floor}"


def wrong(row: Row) -> bool:
    """Whether the row counts what is wrong, not what is right."""
    return row.metric in LOWER_IS_BETTER


COMMANDS: dict[str, Callable[[SyntheticSample, Path], list[object]]] = {
    "read": lambda sample, file: ["read", file],
    "read --level word": lambda sample, file: ["read", file, "--level", "word"],
    "locate": lambda sample, file: ["locate", file, categories(sample)],
    "count": lambda sample, file: ["count", file, categories(sample)],
    "chat": lambda sample, file: ["chat", file, sample.messages[-1].text],
    "extract": lambda sample, file: ["extract", file, "--fields", ", ".join(fields(sample))],
    "parse": lambda sample, file: ["parse", file, "--format", "html"],
    "watch": lambda sample, file: ["watch", file, sample.messages[-1].text.split("\n")[0]],
}


def categories(sample: SyntheticSample) -> str:
    asked = re.search(r'categories: "(.*)"\.', sample.messages[-1].text)
    assert asked
    return asked[1]


def fields(sample: SyntheticSample) -> list[str]:
    assert isinstance(sample.truth, FieldsTruth)
    return list(sample.truth.fields)


def said(ran: Ran) -> str:
    """The model's own words; of an answer that the command could not use, too."""
    document = ran.document
    if "error" in document:
        assert document["error"]["type"] == "ParseError", document
        return str(document["error"]["raw"])
    holder: Any = document.get("grounding") or next(iter(document.get("pages", ())), document)
    return str(holder["raw"] if "raw" in holder else holder["text"])


def file_of(sample: SyntheticSample, folder: Path) -> Path:
    part = sample.pictures[0]
    if isinstance(part, ImagePart):
        path = folder / f"{sample.key.replace('/', '-')}.png"
        picture_of(sample).save(path)
        return path
    path = folder / f"{sample.key.replace('/', '-')}.mp4"
    save_clip(part, path)
    return path


def picture_of(sample: SyntheticSample) -> Image.Image:
    part = sample.pictures[0]
    assert isinstance(part, ImagePart) and isinstance(part.image, Image.Image)
    return part.image


def save_clip(part: VideoPart, path: Path) -> None:
    frames: list[Image.Image] = list(part.video)  # type: ignore[arg-type]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(part.frame_rate or 1), options={"crf": "12"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


@cache
def shipped() -> VLM:
    return qwen3vl.load("small")
