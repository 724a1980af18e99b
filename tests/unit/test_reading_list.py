"""The README's reading list is real and short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("number", "lines"), [(0, 1660), (1, 1700)])
def test_reading_list_exists_and_is_short(number: int, lines: int) -> None:
    """A request's way through the engine, and the network: each at most 12 files."""
    section = (ROOT / "README.md").read_text().split("## Read in this order")[1]
    part = section.split("Then the network:")[number]
    files = [ROOT / path for path in re.findall(r"^\d+\. \[[^]]+\]\(([^)]+)\)", part, flags=re.MULTILINE)]
    assert 8 <= len(files) <= 12
    assert all(path.is_file() for path in files)
    assert sum(len(path.read_text().splitlines()) for path in files) <= lines


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
