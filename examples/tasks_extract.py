"""A form filled in from a picture and checked, and a question about a document with the pages it rests on.

python examples/tasks_extract.py MODEL RECEIPT.jpg REPORT.pdf "What are the key contributions?"
"""

from __future__ import annotations

import sys
from pathlib import Path

import pydantic

import qwen3vl
from qwen3vl.tasks.extraction import extract
from qwen3vl.tasks.questions import ask


class Receipt(pydantic.BaseModel):
    company: str
    date: str
    address: str | None = None
    total: str


def main(model: qwen3vl.Generator, receipt: Path, report: Path, question: str) -> None:
    filled = extract(model, receipt, Receipt)
    print(f"{filled.value.company}: {filled.value.total} on {filled.value.date} ({filled.attempts} attempts)")
    answer = ask(model, report, question)
    print(f"{answer.text}\n-- pages {', '.join(map(str, answer.pages)) or 'not named'} of {answer.num_pages}")


if __name__ == "__main__":
    main(qwen3vl.load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
