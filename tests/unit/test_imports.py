"""Which part of the package may import which, read from the source; and what importing the package costs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qwen3vl

PACKAGE = Path(qwen3vl.__file__).parent
if not (PACKAGE / "model").is_dir():  # an editable install may put __init__.py elsewhere
    PACKAGE = Path(__file__).parents[2] / "src" / "qwen3vl"

BASE = {"types", "errors", "settings", "inputs", "config"}
LAYERS = [  # each may import itself, its neighbours where named below, and what stands above it
    BASE,
    {"model", "processor", "kernels", "tasks"},
    {"engine", "reference", "train", "remote", "turns"},
    {"vlm", "hf"},
    {"agent", "server", "eval", "scale", "bench", "quantized"},
    {"cli", "__main__"},
]
NEIGHBOURS = {
    ("model", "kernels"),
    ("engine", "kernels"),
    ("train", "tasks"),
    ("train", "agent"),  # its prompts and actions
    ("agent", "tasks"),
    ("reference", "engine"),
    ("remote", "turns"),
    ("remote", "turns"),
    ("hf", "vlm"),
    ("vlm", "hf"),
    ("server", "agent"),
    ("scale", "server"),
    ("eval", "scale"),
    ("__main__", "cli"),
}
TASKS_MAY = {"types", "errors", "settings", "tasks"}
BASE_MAY = {
    "errors": set(),
    "settings": {"errors"},
    "types": {"errors", "settings", "inputs"},
    "inputs": {"types"},
    "config": {"errors"},
}
ONLY_IN_TESTS = {"transformers", "torchvision", "qwen_vl_utils", "tests", "pytest", "hypothesis"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, wherever in the file."""
    package = ["qwen3vl", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*home, *([node.module] if node.module else [])])
            yield module
            if module == "qwen3vl":  # from qwen3vl import errors
                yield from (f"qwen3vl.{alias.name}" for alias in node.names)


def family(module: str) -> str:
    """hf_processor -> hf: a module too long for one file stays one part."""
    return next((part for part in ("hf", "vlm", "reference") if module.startswith(f"{part}_")), module)


def part_of(path: Path) -> str:
    """src/qwen3vl/model/text.py -> model; src/qwen3vl/hf.py -> hf."""
    return family(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))


def level(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def allowed(part: str, wanted: str) -> bool:
    if part == wanted or (part, wanted) in NEIGHBOURS:
        return True
    if part in BASE_MAY:
        return wanted in BASE_MAY[part]
    if part == "tasks":
        return wanted in TASKS_MAY
    return level(wanted) < level(part)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_direction(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return  # names its modules as text, see test_public_names
    known = set().union(*LAYERS)
    assert part in known, f"{part} has no place in the import direction"
    for name in imports(path):
        if name.startswith("qwen3vl."):
            wanted = family(name.split(".")[1])
            if wanted in known:
                assert allowed(part, wanted), f"{path.name} imports {name}"
            else:
                assert hasattr(qwen3vl, wanted), f"{path.name} imports {name}, which is nowhere"
        assert name.split(".")[0] not in ONLY_IN_TESTS, f"{path.name} imports {name}"


def test_the_rule_can_be_broken() -> None:
    for part, wanted in [
        ("model", "processor"),
        ("processor", "model"),
        ("model", "engine"),
        ("tasks", "engine"),
        ("tasks", "model"),
        ("tasks", "processor"),
        ("errors", "types"),
        ("config", "model"),
        ("engine", "vlm"),
        ("hf", "cli"),
    ]:
        assert not allowed(part, wanted), (part, wanted)
    assert allowed("engine", "model") and allowed("cli", "vlm") and allowed("tasks", "errors")


@pytest.mark.parametrize("name", qwen3vl.__all__)
def test_public_names(name: str) -> None:
    home = qwen3vl._HOME.get(name)
    if home is not None and importlib.util.find_spec(home) is None:
        pytest.skip(f"{home} does not exist yet")
    assert getattr(qwen3vl, name) is not None
    assert name in dir(qwen3vl)


def test_other_names() -> None:
    assert len(qwen3vl.__all__) <= 22
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qwen3vl.nothing


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a new interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import qwen3vl", "from qwen3vl import Message, SamplingParams, Qwen3VLError", "import qwen3vl.tasks"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "qwen3vl" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "PIL", "av", "pydantic", "jinja2", "httpx", "tokenizers"}


def test_every_module_can_be_imported() -> None:
    for path in sources():
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        importlib.import_module(name)
