"""What decides how an answer is read, and what all kinds of truth compare with; see scoring.py."""

from __future__ import annotations

from PIL import Image

from qwen3vl.tasks import documents, ocr
from qwen3vl.train.metrics import Metric, PixelBox, plain
from qwen3vl.train.synthetic.sample import SyntheticSample
from qwen3vl.types import ImagePart, VideoPart

Metrics = dict[str, Metric]
OVERLAP = 0.5  # of a box that counts as found
SECONDS = 0.5  # that an end of a moment may be off


class Asked:
    """What of a sample decides how an answer to it is read: its question, its picture or clip, its tools; and what was
    asked for beside the truth, which only the true answer tells."""

    def __init__(self, sample: SyntheticSample) -> None:
        self.question = sample.messages[-1].text
        self.media = sample.pictures
        self.on_computer = bool(sample.tools)
        self.true_answer = sample.answer

    @property
    def picture(self) -> Image.Image:
        part = self.media[0]
        assert isinstance(part, ImagePart) and isinstance(part.image, Image.Image), part
        return part.image

    @property
    def clip(self) -> VideoPart:
        part = self.media[0]
        assert isinstance(part, VideoPart), part
        return part

    @property
    def spotting(self) -> ocr.Level | None:
        """The level of text spotting, if that was asked for; its coordinates count to 999."""
        levels: tuple[ocr.Level, ...] = ("line", "word")
        return next((v for v in levels if ocr.SPOTTING_PROMPT.format(level=v) in self.question), None)

    @property
    def format(self) -> documents.Format:
        return "markdown" if "markdown" in self.question.lower() else "html"


def right(is_right: bool) -> Metric:
    """One answer, right or wrong."""
    return Metric(int(is_right), 1)


def label(text: str) -> str:
    """A label as it is compared: as `plain`, whatever the case."""
    return plain(text).casefold()


def inside(box: PixelBox, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
