"""Reading what the model wrote: one door to the readers.

    read_json       parsing_json       JSON, broken or cut, with a report of what was mended
    read_entries    parsing_entries    boxes and points: JSON, XML, plain text
    read_events     parsing_time       moments and events in seconds; parse_time, parse_range
    read_html       parsing_markup     documents: `qwenvl html`
    read_markdown   parsing_markdown   documents: `qwenvl markdown`
    Table           parsing_tables     rows of HTML, LaTeX and Markdown tables
    final_choice    parsing_answers    the chosen option, or "unresolved"

All of them keep the raw text, say in `notes` what was mended or dropped, and raise only ParseError.
"""

from __future__ import annotations

from qwen3vl.tasks.parsing_answers import code_blocks, final_answer, final_choice, without_reasoning
from qwen3vl.tasks.parsing_entries import Entries, Entry, read_entries
from qwen3vl.tasks.parsing_json import ReadJson, read_json
from qwen3vl.tasks.parsing_markdown import read_markdown
from qwen3vl.tasks.parsing_markup import RawBlock, RawPage, read_html
from qwen3vl.tasks.parsing_tables import Table, html_table, latex_table, markdown_table
from qwen3vl.tasks.parsing_time import Event, Events, parse_range, parse_time, read_events

__all__ = [
    "Entries",
    "Entry",
    "Event",
    "Events",
    "RawBlock",
    "RawPage",
    "ReadJson",
    "Table",
    "code_blocks",
    "final_answer",
    "final_choice",
    "html_table",
    "latex_table",
    "markdown_table",
    "parse_range",
    "parse_time",
    "read_entries",
    "read_events",
    "read_html",
    "read_json",
    "read_markdown",
    "without_reasoning",
]
