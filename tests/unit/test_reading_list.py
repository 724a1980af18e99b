"""The README's reading list is real and short."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_reading_list_exists_and_is_short() -> None:
    section = (ROOT / "README.md").read_text().split("## Read in this order")[1]
    files = [ROOT / path for path in re.findall(r"^\d+\. \[[^]]+\]\(([^)]+)\)", section, flags=re.MULTILINE)]
    assert 8 <= len(files) <= 12
    assert all(path.is_file() for path in files)
    assert sum(len(path.read_text().splitlines()) for path in files) <= 1700


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
