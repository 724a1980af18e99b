"""TEDS, how alike two tables are: 1 - edit distance of their trees / nodes of the larger one.

Sources: Zhong et al. 2019, "Image-based table recognition" (the measure and its costs); Zhang and Shasha 1989,
"Simple fast algorithms for the editing distance between trees". As is usual, a table's head and body are no
nodes of their own and a head cell counts as a cell: whether a model writes <thead> is a matter of taste.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from qwen3vl.tasks.parsing_tables import TAG
from qwen3vl.train.metrics import edit_distance, plain

MOST_NODES = 2000  # of an answer; a table that never ends is not compared
_SPAN = re.compile(r"\b(row|col)span\s*=\s*[\"']?(\d{1,4})", re.IGNORECASE)


@dataclass(slots=True)
class Node:
    """A table, a row or a cell. Rows and cells that span nothing have spans of 1."""

    tag: str
    spans: tuple[int, int] = (1, 1)
    text: str = ""
    children: list[Node] = field(default_factory=list)

    @property
    def size(self) -> int:
        return 1 + sum(child.size for child in self.children)


def teds(truth: str, said: str, *, structure_only: bool = False) -> float:
    """Likeness 0..1 of two tables in HTML; `structure_only` (TEDS-S) leaves the text of the cells out.

    Insertion and deletion cost 1; so does changing a row into a cell or a cell's spans; changing a cell's
    text costs its edit distance over the longer of both texts.
    """
    a, b = table_tree(truth), table_tree(said)
    larger = max(a.size, b.size) - 1  # the table itself is always there
    if larger == 0:
        return 1.0
    if b.size > max(MOST_NODES, 2 * a.size):
        return 0.0
    return max(0.0, 1 - tree_distance(a, b, structure_only) / larger)


def table_tree(markup: str) -> Node:
    """The first table of `markup`, cut or without end tags as it may be; what is no certain tag is text."""
    table, depth, at = Node("table"), 0, 0
    cell: Node | None = None
    for match in TAG.finditer(markup):
        if cell is not None:
            cell.text += html.unescape(markup[at : match.start()])
        at, name = match.end(), match["name"].lower()
        if match["closing"]:
            cell = None if name in ("td", "th", "tr", "table") and depth < 2 else cell
            depth -= name == "table"
            if name == "table" and depth < 1:
                break
        elif name == "table":
            depth += 1
        elif name == "tr" and depth < 2:
            table.children.append(Node("tr"))
            cell = None
        elif name in ("td", "th") and depth < 2:
            cell = Node("td", _spans(match["attributes"]))
            if not table.children:
                table.children.append(Node("tr"))
            table.children[-1].children.append(cell)
        elif name == "br" and cell is not None:
            cell.text += " "
    else:
        if cell is not None:
            cell.text += html.unescape(markup[at:])
    for row in table.children:
        for inside in row.children:
            inside.text = plain(inside.text)
    return table


def _spans(attributes: str) -> tuple[int, int]:
    """(rows, columns)."""
    given = {side.lower(): max(1, int(count)) for side, count in _SPAN.findall(attributes)}
    return given.get("row", 1), given.get("col", 1)


# ------------------------------------------------------------------------------- Zhang and Shasha


@dataclass(frozen=True, slots=True)
class _Ordered:
    """A tree in postorder: nodes, the leftmost leaf below each, and the keyroots (rising)."""

    nodes: list[Node]
    leftmost: list[int]
    keyroots: list[int]

    @classmethod
    def of(cls, root: Node) -> _Ordered:
        """Worked example, f(d(a c(b)) e): postorder a b c d e f, leftmost 0 1 1 0 4 0, keyroots c e f = 2 4 5."""
        nodes: list[Node] = []
        leftmost: list[int] = []

        def visit(node: Node) -> int:
            first = [visit(child) for child in node.children]
            leftmost.append(first[0] if first else len(nodes))
            nodes.append(node)
            return leftmost[-1]

        visit(root)
        last_with = {left: i for i, left in enumerate(leftmost)}
        return cls(nodes, leftmost, sorted(last_with.values()))


def tree_distance(a: Node, b: Node, structure_only: bool = False) -> float:
    """Least cost of turning tree `a` into tree `b`."""
    x, y = _Ordered.of(a), _Ordered.of(b)
    costs = [[_cost(p, q, structure_only) for q in y.nodes] for p in x.nodes]
    trees = [[0.0] * len(y.nodes) for _ in x.nodes]
    for i in x.keyroots:
        for j in y.keyroots:
            _forests(x, y, i, j, costs, trees)
    return trees[-1][-1]


def _forests(x: _Ordered, y: _Ordered, i: int, j: int, costs: list[list[float]], trees: list[list[float]]) -> None:
    """Fills `trees` for the subtrees on the left spines of keyroots i and j.

    forest[p][q] is the distance of the first p nodes from leftmost(i) on and the first q from leftmost(j) on.
    """
    left_i, left_j = x.leftmost[i], y.leftmost[j]
    columns = j - left_j + 2
    forest = [[float(q) for q in range(columns)]]
    for p in range(1, i - left_i + 2):
        node = left_i + p - 1
        on_spine = x.leftmost[node] == left_i
        before, above, row = x.leftmost[node] - left_i, forest[p - 1], [float(p)]
        for q in range(1, columns):
            other = left_j + q - 1
            best = min(above[q], row[q - 1]) + 1.0
            if on_spine and y.leftmost[other] == left_j:
                row.append(min(best, above[q - 1] + costs[node][other]))
                trees[node][other] = row[q]
            else:
                row.append(min(best, forest[before][y.leftmost[other] - left_j] + trees[node][other]))
        forest.append(row)


def _cost(a: Node, b: Node, structure_only: bool) -> float:
    if a.tag != b.tag or a.spans != b.spans:
        return 1.0
    if structure_only or a.text == b.text:
        return 0.0
    return edit_distance(a.text, b.text) / max(len(a.text), len(b.text))
