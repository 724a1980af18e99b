"""Edit distance, pairing, tree distance and intervals, by hand-computed values and properties."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.train.intervals import bootstrap, interval, wilson
from qwen3vl.train.metrics import Metric, edit_distance, error_rate, f1, most_pairs, overlap, plain
from qwen3vl.train.teds import Node, table_tree, teds, tree_distance


def table(*rows: str) -> str:
    """table("ab", "cd") has two rows of two cells of one letter."""
    return "<table>" + "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows) + "</table>"


# ------------------------------------------------------------------------------------------ text


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == distance
    assert edit_distance(a.split("x"), b.split("x")) == (a != b)  # of words, not characters


def by_table(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@given(st.text("abc", max_size=70), st.text("abc", max_size=70))
def test_edit_distance_is_that_of_the_table(a: str, b: str) -> None:
    """Up to lengths beyond a machine word, where the bits must not run over."""
    assert edit_distance(a, b) == by_table(a, b) == edit_distance(b, a)


def test_error_rate_is_at_most_one() -> None:
    assert error_rate("abcd", "abxd").value == 0.25
    assert error_rate("abcd", "x" * 1000) == Metric(4, 4)
    assert error_rate("", "").value is None


def test_plain() -> None:
    assert plain("  a\n\t b  ") == "a b"
    assert plain("e\u0301") == "\u00e9"


# ----------------------------------------------------------------------------------------- boxes


def test_overlap() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert overlap((3, 3, 3, 3), (3, 3, 3, 3)) == 1


def test_most_pairs_is_better_than_the_first_that_fits() -> None:
    fits = {("a", "x"), ("b", "x"), ("a", "y")}
    assert most_pairs("ab", "xy", lambda p, q: (p, q) in fits) == [(0, 1), (1, 0)]


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4))
def test_most_pairs_is_the_most(fits: list[list[bool]]) -> None:
    pairs = most_pairs(range(len(fits)), range(4), lambda i, j: fits[i][j])
    assert all(fits[i][j] for i, j in pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    orders = itertools.permutations(range(4), len(fits))
    assert len(pairs) == max(sum(fits[i][j] for i, j in enumerate(order)) for order in orders)


def test_f1_is_the_harmonic_mean() -> None:
    precision, recall = 3 / 4, 3 / 6
    assert f1(3, 6, 4).value == pytest.approx(2 * precision * recall / (precision + recall))
    assert f1(0, 0, 0).value is None
    assert (f1(1, 1, 1) + f1(0, 1, 1)).value == 0.5


# ---------------------------------------------------------------------------------------- tables


def tree(tag: str, *children: Node) -> Node:
    return Node(tag, children=list(children))


def test_distance_of_the_trees_in_zhang_and_shashas_paper() -> None:
    """f(d(a c(b)) e) -> f(c(d(a b)) e): c is deleted and inserted again, cost 2 (figure 4 of the paper)."""
    one = tree("f", tree("d", tree("a"), tree("c", tree("b"))), tree("e"))
    two = tree("f", tree("c", tree("d", tree("a"), tree("b"))), tree("e"))
    assert tree_distance(one, two) == tree_distance(two, one) == 2
    assert tree_distance(one, one) == 0
    assert tree_distance(tree("a"), tree("b")) == 1
    assert tree_distance(tree("a", tree("b"), tree("c")), tree("a", tree("c"))) == 1


@pytest.mark.parametrize(
    ("truth", "said", "likeness", "structure"),
    [
        (table("ab", "cd"), table("ab", "cd"), 1, 1),
        (table("ab", "cd"), table("ab", "cx"), 1 - 1 / 6, 1),  # one of 2 rows + 4 cells differs
        (table("ab", "cd"), table("ab", "c"), 1 - 1 / 6, 1 - 1 / 6),
        (table("ab", "cd"), table("ab"), 1 - 3 / 6, 1 - 3 / 6),
        (table("ab", "cd"), "", 0, 0),
        ("", table("ab"), 0, 0),
        ("<table></table>", "<table></table>", 1, 1),
        ("<table><tr><td>abcd</td></tr></table>", "<table><tr><td>abxd</td></tr></table>", 1 - 0.25 / 2, 1),
        ('<table><tr><td colspan="2">a</td></tr></table>', "<table><tr><td>a</td></tr></table>", 0.5, 0.5),
        # head and body are no nodes, a head cell is a cell, and missing end tags are no matter
        (table("ab", "cd"), "<table><thead><tr><th>a<th> b <tbody><tr><td>c</td><td>d", 1, 1),
        (table("ab", "cd"), "<p>see</p>" + table("ab", "cd") + table("xy"), 1, 1),  # the first table counts
    ],
)
def test_teds(truth: str, said: str, likeness: float, structure: float) -> None:
    assert teds(truth, said) == pytest.approx(likeness)
    assert teds(truth, said, structure_only=True) == pytest.approx(structure)


def test_text_of_cells_is_what_a_reader_sees() -> None:
    cell = table_tree("<table><tr><td> a &lt; b<br>c<b>d</b> x<y </td></tr></table>").children[0].children[0]
    assert cell.text == "a < b cd x<y"


def test_a_table_that_never_ends_is_not_compared() -> None:
    assert teds(table("ab"), "<table>" + "<tr><td>x" * 50_000) == 0


tables = st.lists(st.text("ab", max_size=3), max_size=3).map(lambda rows: table(*rows))


@settings(max_examples=60)
@given(tables, tables, st.booleans())
def test_teds_is_symmetric_and_in_range(a: str, b: str, structure_only: bool) -> None:
    value = teds(a, b, structure_only=structure_only)
    assert 0 <= value <= 1
    assert value == pytest.approx(teds(b, a, structure_only=structure_only))
    assert teds(a, a) == 1


# ------------------------------------------------------------------------------------- intervals


def test_wilson() -> None:
    assert wilson(9, 10) == (pytest.approx(0.5958, abs=1e-4), pytest.approx(0.9821, abs=1e-4))
    assert wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1.0)
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))


def test_intervals_are_chosen_by_what_was_measured() -> None:
    shares = [Metric(1, 1)] * 9 + [Metric(0, 1)]
    assert interval(shares) == wilson(9, 10)
    assert interval([*shares, Metric(0, 0)]) == wilson(9, 10)  # nothing measured is no sample
    assert interval([Metric(0, 0)]) is None
    rates = [Metric(i % 3, 10) for i in range(50)]
    assert interval(rates) == bootstrap(rates) == bootstrap(rates)  # the seed is fixed


def test_the_bootstrap_covers_the_mean_of_the_population() -> None:
    """Of 60 draws of 80 samples, about 95 % of the intervals hold the true mean; and they shrink with the root."""
    draw = random.Random(0)
    hits = 0
    for _ in range(60):
        low, high = bootstrap([Metric(draw.random(), 1) for _ in range(80)])
        hits += low <= 0.5 <= high
    assert 51 <= hits <= 60
    widths = []
    for number in (50, 800):
        low, high = bootstrap([Metric(draw.random(), 1) for _ in range(number)])
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.35)
