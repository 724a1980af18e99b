"""Tasks stand on types and errors alone: no engine, no model, no processor, no torch."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import qwen3vl

SOURCE = next(path for path in map(Path, qwen3vl.__path__) if (path / "tasks").is_dir())  # an editable install has two
AGENT = ("actions.py", "schemas.py")
FILES = sorted([*(SOURCE / "tasks").glob("*.py"), *(SOURCE / "agent" / name for name in AGENT)])
OURS = ("qwen3vl.types", "qwen3vl.errors", "qwen3vl.tasks", "qwen3vl.agent.schemas")
LIBRARIES = {  # what else a module may use, and why
    "pictures": {"PIL"},
    "draw": {"PIL"},
    "fonts": {"PIL"},
    "pages": {"PIL", "pypdfium2"},
    "documents": {"PIL"},
    "blocks": {"PIL"},
    "searchable": {"PIL"},
    "extraction": {"pydantic"},
    "clips": {"av", "PIL"},
    "investigation": {"PIL"},
    "parsing_tables": {"pandas"},
    "export": {"numpy", "supervision"},
    "coding_similarity": {"PIL", "numpy"},
    "zoom": {"PIL"},
}
CAPABILITIES = (
    "grounding",
    "spatial",
    "ocr",
    "documents",
    "extraction",
    "questions",
    "video",
    "investigation",
    "coding",
)


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_imports(file: Path) -> None:
    allowed = LIBRARIES.get(file.stem, {"PIL", "numpy"} if file.stem.startswith("coding") else set())
    for name in imported(file):
        top = name.split(".")[0]
        if top == "qwen3vl":
            assert name in OURS or name.startswith("qwen3vl.tasks."), f"{file.name} imports {name}"
        else:
            assert top in sys.stdlib_module_names or top in allowed, f"{file.name} imports {name}"


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_capability_stays_small(name: str) -> None:
    file = SOURCE / "tasks" / f"{name}.py"
    if not file.exists():
        pytest.skip(f"{name} is not there yet")
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 250
