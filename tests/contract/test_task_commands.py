"""Every task command, end to end over HTTP: a server replays recordings, about pictures, PDFs and videos."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from PIL import Image

from qwen3vl.errors import ContextTooLong, Qwen3VLError
from qwen3vl.tasks.schema import check_schema, problems
from qwen3vl.types import Completion, Delta, Messages, Request, SamplingParams
from tests.contract.cli_runner import Ran, Runner
from tests.fixtures.fake_generator import FakeGenerator
from tests.fixtures.openai_server import (
    DONE,
    OpenAIServer,
    Reply,
    Seen,
    chunk,
    completion,
    event,
    failure,
    stream_of,
    streamed,
)
from tests.fixtures.pictures import scene
from tests.fixtures.videos import constant_clip
from tests.unit.tasks.recorded import answer, recorded

TWO_BOXES = """```json
[
\t{"bbox_2d": [100, 200, 300, 400], "label": "car", "color": "red"},
\t{"bbox_2d": [500, 500, 1000, 900], "label": "person", "color": "blue"}
]
```"""
ONE_WORD = '[{"bbox_2d": [100, 100, 400, 200], "text_content": "Total 8.75"}]'
EVENTS = '{"00:00.50 - 00:01.50": "the number rises.", "00:02.00 - 00:02.00": "a flash."}'
SEEN = '[{"time": 1.0, "bbox_2d": [250, 250, 750, 750], "label": "the number"}]'
PAGE = (
    '<html><body><div class="text" data-bbox="100 100 900 200">Hello page</div>\n'
    '<div class="image" data-bbox="100 300 500 600"></div></body></html>'
)
MARKDOWN = "# Title\n\nHello page\n\n<!-- Image (100, 300, 500, 600) -->"
HTML = "```html\n<!DOCTYPE html><html><body><p>Hi</p></body></html>\n```"


@dataclass
class Server:
    """Replays `answers` in order, the last one again and again."""

    answers: Sequence[str] = ()
    finish: str = "stop"
    asked: int = 0

    def __call__(self, seen: Seen) -> Reply:
        text = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if text.startswith("HTTP "):
            return failure(int(text[5:]), "out of order")
        if not seen.body.get("stream"):
            return completion(text, finish=self.finish)
        if self.finish == "stop":
            return stream_of(text)
        usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
        return streamed([chunk({"role": "assistant", "content": text}), chunk({}, self.finish), event(usage), DONE])


@dataclass
class Bench:
    """The command line before a scripted server, in a folder with files."""

    run: Runner
    server: OpenAIServer
    script: Server
    folder: Path

    def __call__(self, *arguments: object, answers: str | Sequence[str] = (), finish: str = "stop") -> Ran:
        self.script.answers = [answers] if isinstance(answers, str) else answers
        self.script.finish, self.script.asked = finish, 0
        return self.run(*arguments, "--server", self.server.url, "--server-model", "m")

    @property
    def question(self) -> str:
        """All text of the last request."""
        parts = [p for message in self.server.body["messages"] for p in _parts(message["content"])]
        return "".join(p["text"] for p in parts if p["type"] == "text")


def _parts(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    scene(640, 480).save(folder / "photo.png")
    scene(480, 640).save(folder / "page.png")
    pages = [scene(300, 400, seed=seed) for seed in range(3)]
    pages[0].save(folder / "book.pdf", save_all=True, append_images=pages[1:])
    constant_clip(folder / "film.mp4", 40)
    return folder


@pytest.fixture
def bench(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    script = Server()
    with OpenAIServer(script) as server:
        yield Bench(Runner(capsys, monkeypatch), server, script, tmp_path)


# ------------------------------------------------------------------------------- the JSON of every command

NUMBERS = {"type": "array", "items": {"type": "number"}}
BOX = {
    "type": "object",
    "required": ["x1", "y1", "x2", "y2"],
    "properties": {name: {"type": "number", "minimum": 0} for name in ("x1", "y1", "x2", "y2")},
    "additionalProperties": False,
}
SIZE = {**NUMBERS, "minItems": 2, "maxItems": 2}
COMMON: dict[str, Any] = {
    "schema_version": {"const": 1},
    "kind": {"type": "string"},
    "model": {"const": "m"},
    "raw": {"type": "string", "minLength": 1},
    "notes": {"type": "array", "items": {"type": "string"}},
    "written": {"type": "array", "items": {"type": "string"}},
    "usage": {"type": "object", "required": ["prompt_tokens", "completion_tokens"]},
    "receipts": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["source", "digest"]}},
}


def a_list(**properties: Any) -> dict[str, Any]:
    entry = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "array", "minItems": 1, "items": entry}


TEXT, COMPLETE = {"type": "string"}, {"type": "boolean"}
BOXES = a_list(label=TEXT, box=BOX, attributes={"type": "object"})
GROUNDING = {"boxes": BOXES, "size": SIZE, "complete": COMPLETE}
BLOCK = a_list(kind=TEXT, text=TEXT, page={"type": "integer"}, order={"type": "integer"}, box=BOX)
PAGES = a_list(number={"type": "integer"}, size=SIZE, blocks=BLOCK, raw=TEXT, notes=COMMON["notes"])

CASES: dict[str, tuple[list[str], str | list[str], dict[str, Any]]] = {
    "locate": (["photo.png", "car, person"], TWO_BOXES, GROUNDING),
    "point": (
        ["photo.png", "the free space"],
        answer("spatial_11"),
        {"points": a_list(label=TEXT, point={"type": "object", "required": ["x", "y"]}), "size": SIZE},
    ),
    "count": (["photo.png", "car"], TWO_BOXES, {"number": {"const": 2}, "grounding": {"type": "object"}}),
    "locate-3d": (
        ["photo.png", "cars"],
        answer("3d_11_autonomous_driving"),
        {"boxes": a_list(label=TEXT, box={"type": "object"}, corners={"type": "array", "minItems": 8})},
    ),
    "read": (
        ["page.png", "--level", "line"],
        answer("ocr_line_spotting"),
        {"boxes": a_list(text=TEXT, box=BOX), "text": TEXT, "level": {"const": "line"}},
    ),
    "parse": (["page.png", "--format", "html"], answer("docparse_html"), {"pages": PAGES}),
    "extract": (
        ["page.png", "--fields", "company, date, address, total"],
        answer("ocr_kie_receipt"),
        {"value": {"type": "object", "required": ["company", "date", "address", "total"]}, "attempts": {"const": 1}},
    ),
    "ask": (
        ["book.pdf", "What are the contributions?"],
        answer("longdoc_13"),
        {"text": TEXT, "pages": {**NUMBERS, "minItems": 1}, "num_pages": {"const": 3}},
    ),
    "watch": (
        ["film.mp4"],
        EVENTS,
        {"moments": a_list(start={"type": "number"}, end={"type": "number"}, text=TEXT), "duration": {"const": 4.0}},
    ),
    "locate-in-video": (
        ["film.mp4", "the number"],
        SEEN,
        {"boxes": a_list(time={"const": 1.0}, frame={"const": 1}, label=TEXT, box=BOX), "times": NUMBERS},
    ),
    "code": (["photo.png"], HTML, {"source": TEXT, "target": {"const": "html"}, "rounds": {"type": "array"}}),
    "investigate": (
        ["photo.png", "Where is it?"],
        [
            f'<tool_call>\n{{"name": "image_zoom_in_tool", "arguments": {answer("zoom_7_call0")}}}\n</tool_call>',
            "Here.",
        ],
        {"answer": {"const": "Here."}, "looks": a_list(label=TEXT, box=BOX, shown_size=SIZE)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_json(bench: Bench, name: str) -> None:
    arguments, answers, properties = CASES[name]
    ran = bench(name, *arguments, "--json", answers=answers)
    assert ran.code == 0, ran.err
    common = {k: v for k, v in COMMON.items() if name not in ("parse", "count") or k not in ("raw", "receipts")}
    schema = {"type": "object", "properties": {**common, **properties}}
    schema["required"] = list(schema["properties"])
    check_schema(schema)
    assert problems(ran.document, schema) == []


@pytest.mark.parametrize("name", CASES)
def test_for_people(bench: Bench, name: str) -> None:
    """Text, no JSON document; what it says comes from the answer."""
    arguments, answers, _ = CASES[name]
    ran = bench(name, *arguments, answers=answers)
    assert ran.code == 0, ran.err
    expected = {
        "locate": "car     64.0 96.0 192.0 192.0    color: red\nperson  320.0 240.0 640.0 432.0  color: blue\n"
        "2 boxes in photo.png (640 x 480)\n",
        "point": "point_1  592.0 296.6\n1 point in photo.png (640 x 480)\n",
        "count": "2\n",
        "ask": "pages cited: 1, 2 of 3\n",
        "watch": "00:00.50 - 00:01.50  the number rises.\n00:02.00 - 00:02.00  a flash.\n",
        "locate-in-video": "1.00 s  the number  32.0 24.0 96.0 72.0\n1 box in 4 frames of film.mp4 (128 x 96)\n",
        "code": "<!DOCTYPE html><html><body><p>Hi</p></body></html>\n",
        "investigate": "looked at 367.0 144.0 422.0 225.0: main hanging sign for Hop Inn\nHere.\n",
        "locate-3d": "car  at 2.88 0.56 6.28 m  size 4.45 1.70 1.84 m  turned by 135 88.2 135 degrees\n",
        "read": "UNIHAKKA INTERNATIONAL SDN BHD\n",
        "parse": "宇通客车 (600066)",
        "extract": '"total": "RM8.75"',
    }[name]
    assert expected in ran.out


@pytest.mark.parametrize("name", CASES)
def test_an_answer_that_cannot_be_read(bench: Bench, name: str) -> None:
    """Exit code 1, and what the model said, for people and in the JSON document; where any text is an answer, 0."""
    arguments, _, _ = CASES[name]
    said = "I am sorry, I cannot."
    any_text = name in ("parse", "ask", "investigate")
    ran = bench(name, *arguments, answers=said)
    assert ran.code == (0 if any_text else 1)
    assert said in (ran.out if any_text else ran.err)
    ran = bench(name, *arguments, "--json", answers=said)
    assert ran.code == (0 if any_text else 1)
    if not any_text:
        assert ran.document["error"]["type"] == "ParseError"
        assert ran.document["error"]["raw"] == said


@pytest.mark.parametrize("name", CASES)
def test_a_server_that_fails(bench: Bench, name: str) -> None:
    arguments, _, _ = CASES[name]
    ran = bench(name, *arguments, "--json", answers="HTTP 400")
    assert ran.code == 1
    assert "out of order" in ran.out
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", CASES)
def test_a_file_that_is_not_there(bench: Bench, name: str) -> None:
    arguments, answers, _ = CASES[name]
    ran = bench(name, "absent.png", *arguments[1:], "--json", answers=answers)
    assert ran.code == 1
    assert "absent.png" in ran.document["error"]["message"]
    assert bench.server.requests == []


@pytest.mark.parametrize("name", CASES)
def test_help(bench: Bench, name: str) -> None:
    ran = bench.run(name, "--help")
    assert ran.code == 0
    assert f"qwen3vl {name} " in ran.out.split("Options:")[0].split("\n\n", 1)[1], "an example"
    assert "Exit codes: 0 done, 1 the work failed" in " ".join(ran.out.split())
    assert ran.out.count("--server ") == 1


# -------------------------------------------------------------------------------------------- drawings

DRAWINGS: dict[str, tuple[list[str], str | list[str], str, tuple[int, int]]] = {
    "locate": (["photo.png", "car", "--draw", "out.png"], TWO_BOXES, "out.png", (640, 480)),
    "point": (["photo.png", "space", "--draw", "out.png"], answer("spatial_11"), "out.png", (640, 480)),
    "count": (["photo.png", "car", "--draw", "out.jpg"], TWO_BOXES, "out.jpg", (640, 480)),
    "locate-3d": (["photo.png", "car", "--draw", "out.png"], answer("3d_14_office"), "out.png", (640, 480)),
    "read": (["page.png", "--draw", "out.png"], answer("ocr_line_spotting"), "out.png", (960, 640)),
    "parse": (["page.png", "--format", "html", "--draw", "d"], PAGE, "d/page-0001.png", (480, 640)),
    "extract": (
        ["page.png", "--fields", "total", "--draw", "d"],
        '{"total": "8", "_places": {"total": {"page": 1, "bbox_2d": [100, 100, 300, 200]}}}',
        "d/page-0001.png",
        (480, 640),
    ),
    "ask": (["book.pdf", "Which?", "--draw", "d"], "It is here (page 2).", "d/page-0002.png", (600, 800)),
    "watch": (["film.mp4", "--sheet", "out.png"], EVENTS, "out.png", (640, 292)),
    "investigate": (
        ["photo.png", "Where?", "--draw", "out.png"],
        CASES["investigate"][1],
        "out.png",
        (640, 480),
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawing(bench: Bench, name: str) -> None:
    arguments, answers, file, size = DRAWINGS[name]
    ran = bench(name, *arguments, "--json", answers=answers)
    assert ran.code == 0, ran.err
    assert ran.document["written"] == [file]
    with Image.open(bench.folder / file) as drawn:
        assert drawn.size == size
        assert len(drawn.convert("RGB").getcolors(1 << 24) or []) > 2
    source = bench.folder / arguments[0]
    if size == (640, 480):
        assert Image.open(bench.folder / file).convert("RGB").tobytes() != Image.open(source).convert("RGB").tobytes()


def test_drawings_are_refused_before_the_model_works(bench: Bench) -> None:
    for option, why in (
        (["--draw", "photo.png"], "is the input"),
        (["--draw", "out.xyz"], "must end in"),
        (["--draw", "no/out.png"], "does not exist"),
        (["--draw", "."], "is a folder"),
    ):
        ran = bench("locate", "photo.png", "car", *option, answers=TWO_BOXES)
        assert ran.code == 2
        assert why in ran.err
    assert bench.server.requests == []


# ------------------------------------------------------------------------------------ one by one


def test_locate_attributes_and_exports(bench: Bench) -> None:
    ran = bench("locate", "photo.png", "car", "--attributes", "color, type", answers=TWO_BOXES)
    assert ran.code == 0
    assert '"color": "the car\'s color", "type": "the car\'s type"' in bench.question
    exported = {}
    for form, file in (("coco", "a.json"), ("labelme", "b.json"), ("yolo", "c.txt")):
        assert bench("locate", "photo.png", "car", "--export", form, "--out", file, answers=TWO_BOXES).code == 0
        exported[form] = (bench.folder / file).read_text()
    assert json.loads(exported["coco"])["annotations"][0]["bbox"] == [64.0, 96.0, 128.0, 96.0]
    assert json.loads(exported["labelme"])["imagePath"] == "photo.png"
    assert exported["yolo"].splitlines()[0] == "0 0.200000 0.300000 0.200000 0.200000"
    assert (bench.folder / "classes.txt").read_text() == "car\nperson\n"


def test_an_answer_that_is_cut_says_so(bench: Bench) -> None:
    ran = bench("count", "photo.png", "car", answers=TWO_BOXES[:-30], finish="length")
    assert ran.code == 0
    assert "there may be more" in ran.err


def test_locate_3d_cameras(bench: Bench) -> None:
    office = answer("3d_14_office")
    ran = bench("locate-3d", "photo.png", "chair", "--intrinsics", "500,500,320,240", "--json", answers=office)
    assert ran.document["intrinsics"] == {"fx": 500, "fy": 500, "cx": 320, "cy": 240}
    ran = bench("locate-3d", "photo.png", "chair", "--fov", "90", "--json", answers=office)
    assert ran.document["intrinsics"]["fx"] == pytest.approx(320)
    assert any("90 degrees" in note for note in ran.document["notes"])


def test_read_to_a_pdf(bench: Bench) -> None:
    ran = bench("read", "page.png", "--pdf", "out.pdf", answers=ONE_WORD)
    assert ran.code == 0, ran.err
    document = pypdfium2.PdfDocument(bench.folder / "out.pdf")
    assert "Total 8.75" in document[0].get_textpage().get_text_range()
    assert bench("read", "page.png", answers="Two\nlines").out == "Two\nlines\n"


def test_parse_streams_pages_to_stdout(bench: Bench) -> None:
    ran = bench("parse", "book.pdf", answers=MARKDOWN)
    assert ran.out == "# Title\n\nHello page\n\n# Title\n\nHello page\n\n# Title\n\nHello page\n"


def test_parse_to_a_file_with_pictures(bench: Bench) -> None:
    ran = bench("parse", "book.pdf", "--pages", "2-", "--out", "sub.md", "--pictures", "p/q", answers=MARKDOWN)
    assert ran.code == 0, ran.err
    assert ran.out == ""
    assert (bench.folder / "sub.md").read_text().count("# Title") == 2
    assert "![image of page 2](p/q/page-0002-02.png)" in (bench.folder / "sub.md").read_text()
    assert Image.open(bench.folder / "p/q/page-0002-02.png").size == (240, 240)


def test_parse_to_a_folder_links_from_there(bench: Bench) -> None:
    ran = bench("parse", "book.pdf", "--format", "html", "--out", "pages", "--pictures", "cut", answers=PAGE)
    assert ran.code == 0, ran.err
    names = sorted(path.name for path in (bench.folder / "pages").iterdir())
    assert names == ["page-0001.html", "page-0002.html", "page-0003.html"]
    assert 'src="../cut/page-0001-01.png"' in (bench.folder / "pages/page-0001.html").read_text()


def test_parse_html_is_one_document(bench: Bench) -> None:
    ran = bench("parse", "book.pdf", "--format", "html", answers=PAGE)
    assert ran.out.startswith("<!DOCTYPE html>")
    assert ran.out.count("<body>") == ran.out.count("</body>") == 1
    assert ran.out.count("<section") == 3


def test_parse_reports_a_page_that_fails_and_goes_on_later(bench: Bench) -> None:
    arguments = ["parse", "book.pdf", "--resume", "book.pages", "--json"]
    script = bench.script
    script.answers, script.asked = (), 0

    def flaky(seen: Seen) -> Reply:
        script.asked += 1
        return failure(400, "no luck") if script.asked == 2 else completion(MARKDOWN)

    bench.server.script = flaky
    to_server = ("--server", bench.server.url, "--server-model", "m")
    first = bench.run(*arguments, *to_server)
    assert first.code == 1
    failed = [page["number"] for page in first.document["pages"] if page["error"]]
    assert len(failed) == 1
    assert "no luck" in " ".join(first.document["notes"])
    again = bench.run(*arguments, *to_server)
    assert again.code == 0
    assert script.asked == 4, "only the page that failed was asked for again"
    assert all(page["blocks"] for page in again.document["pages"])


@pytest.mark.parametrize(("text", "pages"), [("1-3", 3), ("2", 1), ("3,1", 2), ("2-", 2), (" 1 - 2 , 2", 2)])
def test_parse_pages(bench: Bench, text: str, pages: int) -> None:
    assert len(bench("parse", "book.pdf", "--pages", text, "--json", answers=MARKDOWN).document["pages"]) == pages


@pytest.mark.parametrize("text", ["0", "4", "2-9", "3-2", "x", "", "-", "1,,2", "1-2-3"])
def test_parse_pages_that_are_none(bench: Bench, text: str) -> None:
    ran = bench("parse", "book.pdf", f"--pages={text}", answers=MARKDOWN)
    assert ran.code == 2
    assert "--pages" in ran.err
    assert bench.server.requests == []


def test_extract_with_a_schema(bench: Bench) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    (bench.folder / "s.json").write_text(json.dumps(schema))
    ran = bench("extract", "page.png", "--schema", "s.json", "--json", answers=['{"total": "8"}', '{"total": 8.75}'])
    assert ran.document["value"] == {"total": 8.75}
    assert ran.document["attempts"] == 2
    ran = bench("extract", "page.png", "--schema", "s.json", answers='{"total": "8"}')
    assert ran.code == 1
    assert "answer.total must be number" in ran.err


def test_extract_refuses_a_schema_that_cannot_be_checked(bench: Bench) -> None:
    for text in ('{"type": "object", "dependentRequired": {}}', "[]", "{", '"x"'):
        (bench.folder / "s.json").write_text(text)
        assert bench("extract", "page.png", "--schema", "s.json", answers="{}").code == 2
    assert bench.server.requests == []


def test_watch_writes_subtitles_and_clips(bench: Bench) -> None:
    ran = bench("watch", "film.mp4", "--srt", "a.srt", "--vtt", "a.vtt", "--clips", "c", "--json", answers=EVENTS)
    assert ran.code == 0, ran.err
    assert (bench.folder / "a.srt").read_text().startswith("1\n00:00:00,500 --> 00:00:01,500\nthe number rises.\n")
    assert (bench.folder / "a.vtt").read_text().startswith("WEBVTT\n\n00:00:00.500 -->")
    assert [Path(name).name for name in ran.document["written"]][2:] == ["moment-001.mp4", "moment-002.mp4"]
    assert any("has no length" in note for note in ran.document["notes"])
    assert all(path.stat().st_size > 500 for path in (bench.folder / "c").iterdir())


def test_watch_a_question_and_a_summary(bench: Bench) -> None:
    assert bench("watch", "film.mp4", "when is it red?", answers=EVENTS).code == 0
    assert bench.question.count("when is it red?") == 1
    summary = answer("video_15_framelist")
    assert bench("watch", "film.mp4", "--summary", answers=summary).out == summary + "\n"
    none = bench("watch", "film.mp4", "when is it red?", "--sheet", "s.png", answers="[]")
    assert none.code == 0
    assert "there are no moments" in none.err
    assert not (bench.folder / "s.png").exists()


def test_locate_in_video_draws_over_the_video(bench: Bench) -> None:
    ran = bench("locate-in-video", "film.mp4", "the number", "--fps", "2", "--out", "o.mp4", "--json", answers=SEEN)
    assert ran.code == 0, ran.err
    assert len(ran.document["times"]) == 8
    assert (bench.folder / "o.mp4").stat().st_size > 1000
    assert bench("locate-in-video", "film.mp4", "x", "--max-frames", "3", answers=SEEN).code == 2


def test_code_is_written_and_python_is_not_run(bench: Bench) -> None:
    assert bench("code", "photo.png", "--out", "p.html", answers=HTML).out == ""
    assert (bench.folder / "p.html").read_text().endswith("</html>\n")
    python = "```python\nimport matplotlib\nopen('ran', 'w')\n```"
    assert bench("code", "photo.png", "--target", "matplotlib", answers=python).code == 0
    assert not (bench.folder / "ran").exists()


@pytest.mark.slow
def test_code_is_drawn_and_mended(bench: Bench) -> None:
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium")
    ran = bench("code", "photo.png", "--rounds", "1", "--render", "r.png", "--json", answers=HTML)
    assert ran.code == 0, ran.err
    assert Image.open(bench.folder / "r.png").size == tuple(ran.document["rendering"])
    assert 0 <= ran.document["similarity"] <= 1


def test_investigate_writes_crops_and_can_be_unresolved(bench: Bench) -> None:
    call, _ = CASES["investigate"][1]
    ran = bench("investigate", "photo.png", "Where?", "--crops", "c", "--json", answers=[call, "Here."])
    assert ran.code == 0, ran.err
    size = tuple(ran.document["looks"][0]["shown_size"])
    assert Image.open(bench.folder / "c/look-01.png").size == size
    assert len(ran.document["raw_answers"]) == 2
    ran = bench("investigate", "photo.png", "Where?", "--max-steps", "1", "--json", answers=call)
    assert ran.code == 1
    assert ran.document["answer"] is None


# ------------------------------------------------------------------------- the model and its settings


def test_settings_reach_the_server(bench: Bench) -> None:
    ran = bench(
        *("locate", "photo.png", "car", "--temperature", "0.5", "--seed", "3", "--max-tokens", "99"), answers=TWO_BOXES
    )
    assert ran.code == 0, ran.err
    body = bench.server.body
    assert (body["temperature"], body["seed"], body["max_tokens"], body["model"]) == (0.5, 3, 99, "m")
    assert bench("locate", "photo.png", "car", "--preset", "vl", answers=TWO_BOXES).code == 2, "no top_k on this server"


def test_pixel_bounds_reach_the_picture(bench: Bench) -> None:
    ran = bench("locate", "photo.png", "car", "--max-pixels", "100000", "--json", answers=TWO_BOXES)
    width, height = ran.document["receipts"][0]["resized_size"]
    assert width * height <= 100000
    assert ran.document["size"] == [640, 480], "boxes stay in pixels of the file"


def test_the_key_comes_from_the_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-7")
    assert bench("count", "photo.png", "car", "--api-key-env", "MY_KEY", answers=TWO_BOXES).code == 0
    assert bench.server.requests[-1].headers["authorization"] == "Bearer secret-7"
    ran = bench("count", "photo.png", "car", "--api-key-env", "ABSENT", answers=TWO_BOXES)
    assert ran.code == 2
    assert "ABSENT" in ran.err


class Local(FakeGenerator):
    """A local model: told who listens to its progress, and without room for more than 3000 tokens."""

    def __init__(self, said: str) -> None:
        super().__init__(said, repeat=True, refuse=self._room)
        self.progress: Any = None

    def _room(self, request: Request) -> Qwen3VLError | None:
        assert request.params is not None
        return ContextTooLong("no room") if (request.params.max_tokens or 0) > 3000 else None

    def stream(self, messages: Messages, params: SamplingParams | None = None, **options: Any) -> Iterator[Delta]:
        self.progress = options.pop("progress")
        return super().stream(messages, params, **options)

    def generate_many(self, requests: Iterable[Request], *, progress: Any = None) -> Iterator[Completion]:
        self.progress = progress or self.progress  # an answer that is asked for once more comes without
        return super().generate_many(requests)


@pytest.mark.parametrize(("name", "number"), [("read", 2), ("parse", 2), ("count", 1)])
def test_a_bound_that_is_only_a_default_gives_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """2048 tokens for boxes have room; 4096 of read and 16384 of parse do not: then as many as there is room for."""
    local = Local(TWO_BOXES)
    monkeypatch.setattr("qwen3vl.vlm.load", lambda model, **options: local)
    rest = ["car"] if name == "count" else []
    assert bench.run(name, "page.png", *rest, "--model", "folder").code == 0
    assert local.num_requests == number
    asked = local.last.params
    assert asked is not None
    assert asked.max_tokens == (2048 if number == 1 else None)
    assert local.progress is not None
    ran = bench.run(name, "page.png", *rest, "--model", "folder", "--max-tokens", "3001")
    assert ran.code == (1 if name == "parse" else 2)
    assert "no room" in ran.err


def test_no_heavy_imports_for_help() -> None:
    code = (
        "import sys; from qwen3vl.cli.main import main; codes = main(['parse', '--help']), main(['--help']);"
        "print(codes, {'torch', 'numpy', 'PIL', 'av', 'pypdfium2', 'httpx'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "(0, 0) set()"
    assert "  locate-in-video " in ran.stdout


WRONG: list[list[str]] = [
    ["locate", "photo.png"],
    ["locate", "photo.png", " , "],
    ["locate", "photo.png", "car", "--export", "voc", "--out", "x.json"],
    ["locate", "photo.png", "car", "--export", "coco"],
    ["locate", "photo.png", "car", "--out", "x.json"],
    ["locate", "photo.png", "car", "--export", "yolo", "--out", "x.json"],
    ["locate", "photo.png", "car", "--temperature", "-1"],
    ["locate", "photo.png", "car", "--preset", "none"],
    ["locate", "photo.png", "car", "--min-pixels", "9", "--max-pixels", "8"],
    ["locate", "photo.png", "car", "--fps", "1"],
    ["locate", "photo.png", "car", "-n", "2"],
    ["locate", "photo.png", "car", "--model", "folder"],
    ["locate", "photo.png", "car", "--device", "cpu"],
    ["locate-3d", "photo.png", "car", "--fov", "60", "--intrinsics", "1,1,1,1"],
    ["locate-3d", "photo.png", "car", "--fov", "180"],
    ["locate-3d", "photo.png", "car", "--intrinsics", "1,1,1"],
    ["locate-3d", "photo.png", "car", "--intrinsics", "0,1,1,1"],
    ["read", "page.png", "--level", "letter"],
    ["read", "page.png", "--level", "page", "--draw", "x.png"],
    ["read", "page.png", "--pdf", "x.txt"],
    ["parse", "book.pdf", "--format", "latex"],
    ["parse", "book.pdf", "--out", "book.pdf"],
    ["parse", "book.pdf", "--draw", "page.png"],
    ["extract", "page.png"],
    ["extract", "page.png", "--fields", ","],
    ["extract", "page.png", "--fields", "a", "--schema", "s.json"],
    ["extract", "page.png", "--schema", "absent.json"],
    ["ask", "book.pdf"],
    ["ask", "book.pdf", "page.png"],
    ["watch", "film.mp4", "when?", "--summary"],
    ["watch", "film.mp4", "--summary", "--srt", "x.srt"],
    ["watch", "film.mp4", "--srt", "x.txt"],
    ["locate-in-video", "film.mp4", "x", "--fps", "0"],
    ["code", "photo.png", "--target", "latex"],
    ["code", "photo.png", "--run"],
    ["code", "photo.png", "--target", "matplotlib", "--render", "x.png"],
    ["code", "photo.png", "--rounds", "-1"],
    ["investigate", "photo.png", "x", "--max-steps", "0"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_usage(bench: Bench, arguments: list[str]) -> None:
    ran = bench(*arguments, "--json", answers=TWO_BOXES)
    assert ran.code == 2, ran.err
    assert ran.document["error"]["message"]
    assert bench.server.requests == []


def test_server_options_need_each_other(bench: Bench) -> None:
    assert bench.run("count", "photo.png", "car", "--server", bench.server.url).code == 2
    assert bench.run("count", "photo.png", "car", "--server-model", "m").code == 2
    assert bench.run("count", "photo.png", "car", "--api-key-env", "PATH").code == 2


# ------------------------------------------------------------------------------------- real files

REAL: list[tuple[str, str, Callable[[str], list[str]], str]] = [
    ("locate", "pictures/coco/**/*.jpg", lambda f: [f, "people"], TWO_BOXES),
    ("locate", "pictures/exif_orientation/**/*_6.jpg", lambda f: [f, "people", "--draw", "o.png"], TWO_BOXES),
    ("read", "documents/sroie/030.jpg", lambda f: [f, "--draw", "o.png"], answer("ocr_line_spotting")),
    ("parse", "documents/pdf/edgar-rotated90.pdf", lambda f: [f, "--pages", "1", "--draw", "d"], MARKDOWN),
    ("ask", "documents/pdf/dolma-page-1.pdf", lambda f: [f, "What is it?"], answer("longdoc_13")),
    ("watch", "videos/torchcodec/nasa_13013_rotated.mp4", lambda f: [f, "--sheet", "o.png"], EVENTS),
    ("locate-in-video", "videos/torchcodec/nasa_13013.mp4", lambda f: [f, "x", "--out", "o.mp4"], SEEN),
]


@pytest.mark.parametrize(("name", "pattern", "arguments", "said"), REAL, ids=[f"{r[0]}-{r[1]}" for r in REAL])
def test_real_files(
    bench: Bench, media: Path, name: str, pattern: str, arguments: Callable[[str], list[str]], said: str
) -> None:
    file = min(media.glob(pattern))
    ran = bench(name, *arguments(str(file)), "--json", answers=said)
    assert ran.code == 0, ran.err
    for receipt in ran.document.get("receipts", []):
        assert receipt["num_tokens"] >= 0
    for written in ran.document["written"]:
        assert (bench.folder / written).stat().st_size > 0


def test_the_recorded_boxes_are_in_the_recorded_picture(bench: Bench) -> None:
    """Football: 27 points or so of the third-party recording, all within a picture of their own size."""
    found = recorded("thirdparty_grounding2d_15")
    ran = bench("point", "photo.png", "every person", "--attributes", "role", "--json", answers=found["output"])
    assert len(ran.document["points"]) == found["output"].count("point_2d")
    assert all(0 <= p["point"]["x"] <= 640 and 0 <= p["point"]["y"] <= 480 for p in ran.document["points"])
